// The wide body of generate() with AVX2 and F16C: generate_avx512.cpp, half as wide, two halves a step. What AVX2 does
// not have:
//
//   64-bit integer to double   the integer is added to the bits of 2^52 + 2^51, which is then subtracted: exact below
//   2^51 masks                      all ones or zeros in the lanes of a comparison
//
// Nothing inline from a shared header may be called here: the linker could keep this file's copy of it for all.
#include <immintrin.h>

#include "checkpoint/philox.hpp"
#include "checkpoint/x86/wide_bodies.hpp"

namespace geom {
namespace {

using Lanes = __m256i;
constexpr std::int64_t half_step = wide_step / 2;  // elements

Lanes all(std::uint32_t value) noexcept { return _mm256_set1_epi32(static_cast<int>(value)); }
Lanes of_floats(__m256 floats) noexcept { return _mm256_castps_si256(floats); }
__m256 as_floats(Lanes lanes) noexcept { return _mm256_castsi256_ps(lanes); }

/// The lower 32 bits of 64-bit lanes, even then odd.
Lanes lower_halves(Lanes even, Lanes odd) noexcept {
    return of_floats(_mm256_blend_ps(as_floats(even), _mm256_moveldup_ps(as_floats(odd)), 0xAA));
}
Lanes upper_halves(Lanes even, Lanes odd) noexcept {
    return of_floats(_mm256_blend_ps(_mm256_movehdup_ps(as_floats(even)), as_floats(odd), 0xAA));
}

struct RoundKeys {
    Lanes first[philox_rounds];
    Lanes second[philox_rounds];
};

RoundKeys round_keys(std::uint64_t seed) noexcept {
    RoundKeys keys;
    auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < philox_rounds; ++round) {
        keys.first[round] = all(k0);
        keys.second[round] = all(k1);
        k0 += philox_key_step_0;
        k1 += philox_key_step_1;
    }
    return keys;
}

Lanes xor3(Lanes a, Lanes b, Lanes c) noexcept { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }

/// Sums of four 16-bit integers, less 4 * 32768, of the 8 elements of blocks [block, block + 4).
Lanes sums_of_blocks(const RoundKeys& keys, std::uint64_t tensor_key, Lanes block) noexcept {
    const Lanes multiplier_0 = _mm256_set1_epi64x(philox_multiplier_0);
    const Lanes multiplier_1 = _mm256_set1_epi64x(philox_multiplier_1);
    Lanes word0 = block, word1 = _mm256_srli_epi64(block, 32);
    Lanes word2 = _mm256_set1_epi64x(static_cast<long long>(tensor_key)), word3 = _mm256_srli_epi64(word2, 32);
#pragma GCC unroll 10
    for (int round = 0; round < philox_rounds; ++round) {
        const Lanes product_0 = _mm256_mul_epu32(word0, multiplier_0);
        const Lanes product_1 = _mm256_mul_epu32(word2, multiplier_1);
        word0 = xor3(_mm256_srli_epi64(product_1, 32), word1, keys.first[round]);
        word1 = product_1;
        word2 = xor3(_mm256_srli_epi64(product_0, 32), word3, keys.second[round]);
        word3 = product_0;
    }
    // vpmaddwd takes signed halves: u - 32768 is u with its upper bit flipped
    const Lanes flip = all(0x80008000U), ones = _mm256_set1_epi16(1);
    const Lanes a = _mm256_xor_si256(lower_halves(word0, word2), flip);
    const Lanes b = _mm256_xor_si256(lower_halves(word1, word3), flip);
    return _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
}

/// Half of the weighted sums: exact integers, as doubles, of the elements of even and of odd index.
struct Weighted {
    __m256d even;
    __m256d odd;
};

template <bool has_base, bool has_own>
class Weighting {
public:
    explicit Weighting(const SyntheticSource& source) noexcept
        : keys_(round_keys(source.seed)),
          base_key_(source.base_key),
          own_key_(source.own_key),
          base_factor_(_mm256_set1_epi64x(source.base_factor)),
          own_factor_(_mm256_set1_epi64x(source.own_factor)),
          // s / 2 = sum - 2 * 65535, and sums_of_blocks() returns sum - 4 * 32768
          offset_(_mm256_set1_epi64x(2 * (source.base_factor + source.own_factor))) {}

    Weighted operator()(Lanes block) const noexcept {
        Lanes even = offset_, odd = offset_;
        if constexpr (has_base) add(sums_of_blocks(keys_, base_key_, block), base_factor_, even, odd);
        if constexpr (has_own) add(sums_of_blocks(keys_, own_key_, block), own_factor_, even, odd);
        return {to_doubles(even), to_doubles(odd)};
    }

private:
    static void add(Lanes sums, Lanes factor, Lanes& even, Lanes& odd) noexcept {
        even = _mm256_add_epi64(even, _mm256_mul_epi32(sums, factor));
        odd = _mm256_add_epi64(odd, _mm256_mul_epi32(_mm256_srli_epi64(sums, 32), factor));
    }
    static __m256d to_doubles(Lanes integers) noexcept {
        const __m256d middle = _mm256_set1_pd(0x1.8p52);
        const Lanes moved = _mm256_add_epi64(integers, _mm256_castpd_si256(middle));
        return _mm256_sub_pd(_mm256_castsi256_pd(moved), middle);
    }

    RoundKeys keys_;
    std::uint64_t base_key_, own_key_;
    Lanes base_factor_, own_factor_, offset_;
};

/// The 8 elements times 2^-exponent as f32, rounded to odd at 21 significant bits.
Lanes to_f32_round_to_odd(const Weighted& w, int exponent) noexcept {
    const Lanes even = _mm256_castpd_si256(w.even), odd = _mm256_castpd_si256(w.odd), zero = _mm256_setzero_si256();
    const Lanes upper = upper_halves(even, odd), lower = lower_halves(even, odd);
    const Lanes sticky = _mm256_or_si256(upper, _mm256_andnot_si256(_mm256_cmpeq_epi32(lower, zero), all(1)));
    // the exponent loses the difference of the biases and takes the scale; the mantissa grows from 20 to 23 bits
    const Lanes bias = _mm256_set1_epi32((1023 - 127 + exponent) << 20);
    const Lanes magnitude = _mm256_slli_epi32(_mm256_sub_epi32(sticky, bias), 3);
    const Lanes sign = all(0x80000000U);
    const Lanes value = _mm256_or_si256(_mm256_and_si256(sign, upper), _mm256_andnot_si256(sign, magnitude));
    return _mm256_andnot_si256(_mm256_cmpeq_epi32(upper, zero), value);
}

// Each writes 8 elements.
struct ToBf16 {
    static constexpr std::int64_t bytes = 2;
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const Lanes f = to_f32_round_to_odd(w, exponent);
        const Lanes last_kept = _mm256_and_si256(_mm256_srli_epi32(f, 16), all(1));
        const Lanes rounded = _mm256_add_epi32(_mm256_add_epi32(f, all(0x7fff)), last_kept);
        const Lanes bits = _mm256_srli_epi32(rounded, 16);
        const __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), narrow);
    }
};

struct ToF16 {
    static constexpr std::int64_t bytes = 2;
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const __m256 f = as_floats(to_f32_round_to_odd(w, exponent));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                         _mm256_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
};

struct ToF64 {
    static constexpr std::int64_t bytes = 8;
    struct Ordered {
        __m256d first, second;
    };
    static Ordered ordered(const Weighted& w, int exponent) noexcept {
        const __m256d scale =
            _mm256_castsi256_pd(_mm256_set1_epi64x(static_cast<long long>(1023 - exponent) << 52));  // 2^-exponent
        const __m256d even = _mm256_mul_pd(w.even, scale), odd = _mm256_mul_pd(w.odd, scale);
        const __m256d outer = _mm256_unpacklo_pd(even, odd), inner = _mm256_unpackhi_pd(even, odd);
        return {_mm256_permute2f128_pd(outer, inner, 0x20), _mm256_permute2f128_pd(outer, inner, 0x31)};
    }
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const Ordered v = ordered(w, exponent);
        _mm256_storeu_pd(reinterpret_cast<double*>(out), v.first);
        _mm256_storeu_pd(reinterpret_cast<double*>(out + 32), v.second);
    }
};

struct ToF32 {
    static constexpr std::int64_t bytes = 4;
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const ToF64::Ordered v = ToF64::ordered(w, exponent);
        _mm_storeu_ps(reinterpret_cast<float*>(out), _mm256_cvtpd_ps(v.first));
        _mm_storeu_ps(reinterpret_cast<float*>(out + 16), _mm256_cvtpd_ps(v.second));
    }
};

template <typename Converter, bool has_base, bool has_own>
void run(const SyntheticSource& source, std::int64_t first_block, std::int64_t steps, std::byte* out) noexcept {
    const Weighting<has_base, has_own> weighted(source);
    const int exponent = source.exponent - 1;  // half of the sum was weighted
    Lanes block = _mm256_add_epi64(_mm256_set1_epi64x(first_block), _mm256_setr_epi64x(0, 1, 2, 3));
    for (std::int64_t half = 0; half < 2 * steps; ++half) {
        Converter::store(weighted(block), exponent, out + half * half_step * Converter::bytes);
        block = _mm256_add_epi64(block, _mm256_set1_epi64x(half_step / 2));
    }
}

template <typename Converter>
void run_halves(const SyntheticSource& source, std::int64_t first_block, std::int64_t steps, std::byte* out) noexcept {
    if (source.own_factor == 0) return run<Converter, true, false>(source, first_block, steps, out);
    if (source.base_factor == 0) return run<Converter, false, true>(source, first_block, steps, out);
    run<Converter, true, true>(source, first_block, steps, out);
}

}  // namespace

void generate_avx2(const SyntheticSource& source, DType dtype, std::int64_t first_block, std::int64_t steps,
                   std::byte* out) noexcept {
    switch (dtype) {
        case DType::bf16:
            return run_halves<ToBf16>(source, first_block, steps, out);
        case DType::f16:
            return run_halves<ToF16>(source, first_block, steps, out);
        case DType::f32:
            return run_halves<ToF32>(source, first_block, steps, out);
        default:
            return run_halves<ToF64>(source, first_block, steps, out);
    }
}

}  // namespace geom
