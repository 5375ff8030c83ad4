// What the bodies of AVX-512 share. In an unnamed namespace: see panel_product.hpp.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace geom::panels {
namespace {

struct Avx512Vector {
    using Register = __m512;
    static constexpr int width = 16, rows = 8;

    static Register zero() { return _mm512_setzero_ps(); }
    static Register load(const std::byte* from) { return _mm512_loadu_ps(from); }
    static Register spread(const std::byte* unit) {
        return _mm512_broadcastss_ps(_mm_load_ss(reinterpret_cast<const float*>(unit)));
    }
    static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
    static Register load_sums(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, Register sums) { _mm512_storeu_ps(to, sums); }
};

double dot(const float* a, const float* b, std::int64_t n) {
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    for (std::int64_t i = 0; i < n; i += 16) {
        low = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i)), low);
        high = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8)),
                               high);
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

}  // namespace
}  // namespace geom::panels
