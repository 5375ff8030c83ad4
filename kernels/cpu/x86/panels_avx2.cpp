// f32 products with AVX2 and FMA; blocks of bf16 are widened.
#include <immintrin.h>

#include "kernels/cpu/panel_kernels.hpp"
#include "kernels/cpu/panel_product.hpp"

namespace geom::panels {

namespace {

struct Vector {
    using Register = __m256;
    static constexpr int width = 8, rows = 4;
    static constexpr std::int64_t cols_of_unit = 1;

    static Register zero() { return _mm256_setzero_ps(); }
    static Register load(const std::byte* from) {
        Register loaded = _mm256_loadu_ps(reinterpret_cast<const float*>(from));
        asm("" : "+x"(loaded));  // gcc would load it once for each of its products, and loads would be the bound
        return loaded;
    }
    static Register spread(const std::byte* unit) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(unit)); }
    static Register multiply_add(Register left, Register right, Register sum) {
        return _mm256_fmadd_ps(left, right, sum);
    }
    static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
    static Register load_sums(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Register sums) { _mm256_storeu_ps(to, sums); }
};

void widen(const std::byte* from, std::int64_t steps, float* to) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
    const auto put = [](float* at, __m256i bits) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), bits); };
    for (std::int64_t k = 0; k < steps; ++k) {
        for (int half = 0; half < 16; half += 8) {
            const __m256i pairs =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + k * step_bytes + half * unit_bytes));
            put(to + 32 * k + half, _mm256_and_si256(pairs, upper));
            put(to + 32 * k + 16 + half, _mm256_slli_epi32(pairs, 16));
        }
    }
}

// In the order of AVX-512's, which adds the halves of its vectors.
double dot(const float* a, const float* b, std::int64_t n) {
    __m256d sums[4] = {};
    for (std::int64_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            sums[part] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + i + 4 * part)),
                                         _mm256_cvtps_pd(_mm_loadu_ps(b + i + 4 * part)), sums[part]);
        }
    }
    double parts[4];
    _mm256_storeu_pd(parts, _mm256_add_pd(_mm256_add_pd(sums[0], sums[2]), _mm256_add_pd(sums[1], sums[3])));
    return (parts[0] + parts[2]) + (parts[1] + parts[3]);
}

}  // namespace

const Kernels avx2_f32 = {false, accumulate<Vector>, widen, dot};

}  // namespace geom::panels
