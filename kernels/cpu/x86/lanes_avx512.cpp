#include <immintrin.h>

#include "kernels/cpu/lane_kernels.hpp"
#include "kernels/cpu/x86/wide_lanes.hpp"

namespace geom::lanes {

namespace {

struct Vector {
    using Register = __m512;
    using Bits = std::int32_t __attribute__((vector_size(64)));
    using Halves = std::uint16_t __attribute__((vector_size(32)));
    static constexpr int width = 16, rows = 8, panels = 3;
    static Register zero() { return _mm512_setzero_ps(); }
    static Register load(const float* from) { return _mm512_loadu_ps(from); }
    static Register spread(const float* from) { return _mm512_broadcastss_ps(_mm_load_ss(from)); }
    static Register multiply_add(Register left, Register right, Register sum) {
        return _mm512_fmadd_ps(left, right, sum);
    }
    static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
    static void store(float* to, Register sums) { _mm512_storeu_ps(to, sums); }
};

}  // namespace

const Kernels avx512 = kernels_with<Vector>("avx512-f32");

}  // namespace geom::lanes
