#include <immintrin.h>

#include "kernels/cpu/lane_kernels.hpp"
#include "kernels/cpu/x86/wide_lanes.hpp"

namespace geom::lanes {

namespace {

struct Vector {
    using Register = __m256;
    using Bits = std::int32_t __attribute__((vector_size(32)));
    using Halves = std::uint16_t __attribute__((vector_size(16)));
    static constexpr int width = 8, rows = 6, panels = 1;
    static Register zero() { return _mm256_setzero_ps(); }
    static Register load(const float* from) {
        Register loaded = _mm256_loadu_ps(from);
        asm("" : "+x"(loaded));  // gcc would load it once for each of its products, and loads would be the bound
        return loaded;
    }
    static Register spread(const float* from) { return _mm256_broadcast_ss(from); }
    static Register multiply_add(Register left, Register right, Register sum) {
        return _mm256_fmadd_ps(left, right, sum);
    }
    static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
    static void store(float* to, Register sums) { _mm256_storeu_ps(to, sums); }
};

}  // namespace

const Kernels avx2 = kernels_with<Vector>("avx2-f32");

}  // namespace geom::lanes
