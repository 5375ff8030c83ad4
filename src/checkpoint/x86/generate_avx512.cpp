// The wide body of generate() with AVX-512 (F, BW, DQ, VL): 16 consecutive elements a step, from 8 blocks a half.
//
//   lanes      a 64-bit lane holds one block; a vector holds one of its four words, in the lower 32 bits. The 32 x 32
//              multiplication reads only these, so the upper bits may be anything: no shuffles between rounds.
//   sums       words 0|2 and 1|3 are merged into 32-bit lanes, which then stand in the order of the elements;
//              vpmaddwd with ones adds the two 16-bit halves of each.
//   weighting  even and odd elements apart, in exact 64-bit integers, then exact doubles.
//   rounding   bf16 and f16: the upper 32 bits of the double with "some lower bit was set" in the last place (round to
//              odd) make an f32 of 21 significant bits; rounding that to 8 or 11 bits is rounding the exact value,
//              because 21 >= 11 + 2.
//
// Nothing inline from a shared header may be called here: the linker could keep this file's copy of it for all.
#include <immintrin.h>

#include "checkpoint/philox.hpp"
#include "checkpoint/x86/wide_bodies.hpp"

namespace geom {
namespace {

using Lanes = __m512i;

struct RoundKeys {
    Lanes first[philox_rounds];
    Lanes second[philox_rounds];
};

RoundKeys round_keys(std::uint64_t seed) noexcept {
    RoundKeys keys;
    auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < philox_rounds; ++round) {
        keys.first[round] = _mm512_set1_epi32(static_cast<int>(k0));
        keys.second[round] = _mm512_set1_epi32(static_cast<int>(k1));
        k0 += philox_key_step_0;
        k1 += philox_key_step_1;
    }
    return keys;
}

Lanes xor3(Lanes a, Lanes b, Lanes c) noexcept { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }

/// Sums of four 16-bit integers, less 4 * 32768, of the 16 elements of blocks [block, block + 8).
Lanes sums_of_blocks(const RoundKeys& keys, std::uint64_t tensor_key, Lanes block) noexcept {
    const Lanes multiplier_0 = _mm512_set1_epi64(philox_multiplier_0);
    const Lanes multiplier_1 = _mm512_set1_epi64(philox_multiplier_1);
    Lanes word0 = block, word1 = _mm512_srli_epi64(block, 32);
    Lanes word2 = _mm512_set1_epi64(static_cast<long long>(tensor_key)), word3 = _mm512_srli_epi64(word2, 32);
#pragma GCC unroll 10
    for (int round = 0; round < philox_rounds; ++round) {
        const Lanes product_0 = _mm512_mul_epu32(word0, multiplier_0);
        const Lanes product_1 = _mm512_mul_epu32(word2, multiplier_1);
        word0 = xor3(_mm512_srli_epi64(product_1, 32), word1, keys.first[round]);
        word1 = product_1;
        word2 = xor3(_mm512_srli_epi64(product_0, 32), word3, keys.second[round]);
        word3 = product_0;
    }
    const auto interleave = [](Lanes even, Lanes odd) {
        return _mm512_castps_si512(
            _mm512_mask_moveldup_ps(_mm512_castsi512_ps(even), 0xAAAA, _mm512_castsi512_ps(odd)));
    };
    // vpmaddwd takes signed halves: u - 32768 is u with its upper bit flipped
    const Lanes flip = _mm512_set1_epi32(static_cast<int>(0x80008000U)), ones = _mm512_set1_epi16(1);
    const Lanes a = _mm512_xor_si512(interleave(word0, word2), flip);
    const Lanes b = _mm512_xor_si512(interleave(word1, word3), flip);
    return _mm512_add_epi32(_mm512_madd_epi16(a, ones), _mm512_madd_epi16(b, ones));
}

/// Half of the weighted sums: exact integers, as doubles, of the elements of even and of odd index.
struct Weighted {
    __m512d even;
    __m512d odd;
};

template <bool has_base, bool has_own>
class Weighting {
public:
    explicit Weighting(const SyntheticSource& source) noexcept
        : keys_(round_keys(source.seed)),
          base_key_(source.base_key),
          own_key_(source.own_key),
          base_factor_(_mm512_set1_epi64(source.base_factor)),
          own_factor_(_mm512_set1_epi64(source.own_factor)),
          // s / 2 = sum - 2 * 65535, and sums_of_blocks() returns sum - 4 * 32768
          offset_(_mm512_set1_epi64(2 * (source.base_factor + source.own_factor))) {}

    Weighted operator()(Lanes block) const noexcept {
        Lanes even = offset_, odd = offset_;
        if constexpr (has_base) add(sums_of_blocks(keys_, base_key_, block), base_factor_, even, odd);
        if constexpr (has_own) add(sums_of_blocks(keys_, own_key_, block), own_factor_, even, odd);
        return {_mm512_cvtepi64_pd(even), _mm512_cvtepi64_pd(odd)};
    }

private:
    static void add(Lanes sums, Lanes factor, Lanes& even, Lanes& odd) noexcept {
        even = _mm512_add_epi64(even, _mm512_mul_epi32(sums, factor));
        odd = _mm512_add_epi64(odd, _mm512_mul_epi32(_mm512_srli_epi64(sums, 32), factor));
    }

    RoundKeys keys_;
    std::uint64_t base_key_, own_key_;
    Lanes base_factor_, own_factor_, offset_;
};

/// The 16 elements times 2^-exponent as f32, rounded to odd at 21 significant bits.
Lanes to_f32_round_to_odd(const Weighted& w, int exponent) noexcept {
    const __m512 even = _mm512_castpd_ps(w.even), odd = _mm512_castpd_ps(w.odd);
    const Lanes upper = _mm512_castps_si512(_mm512_mask_movehdup_ps(odd, 0x5555, even));
    const Lanes lower = _mm512_castps_si512(_mm512_mask_moveldup_ps(even, 0xAAAA, odd));
    const Lanes sticky = _mm512_mask_or_epi32(upper, _mm512_test_epi32_mask(lower, lower), upper, _mm512_set1_epi32(1));
    // the exponent loses the difference of the biases and takes the scale; the mantissa grows from 20 to 23 bits
    const Lanes bias = _mm512_set1_epi32((1023 - 127 + exponent) << 20);
    const Lanes magnitude = _mm512_slli_epi32(_mm512_sub_epi32(sticky, bias), 3);
    const Lanes sign = _mm512_set1_epi32(static_cast<int>(0x80000000U));
    return _mm512_maskz_ternarylogic_epi32(_mm512_test_epi32_mask(upper, upper), sign, upper, magnitude, 0xCA);
}

struct ToBf16 {
    static constexpr std::int64_t bytes = 2;
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const Lanes f = to_f32_round_to_odd(w, exponent);
        const Lanes last_kept = _mm512_and_si512(_mm512_srli_epi32(f, 16), _mm512_set1_epi32(1));
        const Lanes rounded = _mm512_add_epi32(_mm512_add_epi32(f, _mm512_set1_epi32(0x7fff)), last_kept);
        const __m256i bits = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bits);
    }
};

struct ToF16 {
    static constexpr std::int64_t bytes = 2;
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const __m512 f = _mm512_castsi512_ps(to_f32_round_to_odd(w, exponent));
        const __m256i bits = _mm512_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bits);
    }
};

struct ToF64 {
    static constexpr std::int64_t bytes = 8;
    struct Ordered {
        __m512d first, second;
    };
    static Ordered ordered(const Weighted& w, int exponent) noexcept {
        const __m512d scale =
            _mm512_castsi512_pd(_mm512_set1_epi64(static_cast<long long>(1023 - exponent) << 52));  // 2^-exponent
        const __m512d even = _mm512_mul_pd(w.even, scale), odd = _mm512_mul_pd(w.odd, scale);
        const Lanes first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11),
                    second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        return {_mm512_permutex2var_pd(even, first, odd), _mm512_permutex2var_pd(even, second, odd)};
    }
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const Ordered v = ordered(w, exponent);
        _mm512_storeu_pd(out, v.first);
        _mm512_storeu_pd(out + 64, v.second);
    }
};

struct ToF32 {
    static constexpr std::int64_t bytes = 4;
    static void store(const Weighted& w, int exponent, std::byte* out) noexcept {
        const ToF64::Ordered v = ToF64::ordered(w, exponent);
        _mm256_storeu_ps(reinterpret_cast<float*>(out), _mm512_cvtpd_ps(v.first));
        _mm256_storeu_ps(reinterpret_cast<float*>(out + 32), _mm512_cvtpd_ps(v.second));
    }
};

template <typename Converter, bool has_base, bool has_own>
void run(const SyntheticSource& source, std::int64_t first_block, std::int64_t steps, std::byte* out) noexcept {
    const Weighting<has_base, has_own> weighted(source);
    const int exponent = source.exponent - 1;  // half of the sum was weighted
    Lanes block = _mm512_add_epi64(_mm512_set1_epi64(first_block), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    for (std::int64_t step = 0; step < steps; ++step) {
        Converter::store(weighted(block), exponent, out + step * wide_step * Converter::bytes);
        block = _mm512_add_epi64(block, _mm512_set1_epi64(wide_step / 2));
    }
}

template <typename Converter>
void run_halves(const SyntheticSource& source, std::int64_t first_block, std::int64_t steps, std::byte* out) noexcept {
    if (source.own_factor == 0) return run<Converter, true, false>(source, first_block, steps, out);
    if (source.base_factor == 0) return run<Converter, false, true>(source, first_block, steps, out);
    run<Converter, true, true>(source, first_block, steps, out);
}

}  // namespace

void generate_avx512(const SyntheticSource& source, DType dtype, std::int64_t first_block, std::int64_t steps,
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
