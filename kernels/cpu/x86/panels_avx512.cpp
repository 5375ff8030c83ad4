// f32 products with AVX-512; blocks of bf16 are widened.
#include "kernels/cpu/panel_kernels.hpp"
#include "kernels/cpu/panel_product.hpp"
#include "kernels/cpu/x86/avx512_vector.hpp"

namespace geom::panels {

namespace {

struct Vector : Avx512Vector {
    static constexpr std::int64_t cols_of_unit = 1;
    static Register multiply_add(Register left, Register right, Register sum) {
        return _mm512_fmadd_ps(left, right, sum);
    }
};

void widen(const std::byte* from, std::int64_t steps, float* to) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
    for (std::int64_t k = 0; k < steps; ++k) {
        const __m512i pairs = _mm512_loadu_si512(from + k * step_bytes);
        _mm512_storeu_si512(to + 32 * k, _mm512_and_si512(pairs, upper));
        _mm512_storeu_si512(to + 32 * k + 16, _mm512_slli_epi32(pairs, 16));
    }
}

}  // namespace

const Kernels avx512_f32 = {false, accumulate<Vector>, widen, dot};

}  // namespace geom::panels
