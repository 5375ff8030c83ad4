// Products of bf16 as stored, with AVX512-BF16. vdpbf16ps is two fused multiply-adds of f32, rounded to nearest, which
// take a bf16 below 2^-126 for zero and make one of a sum below it, whatever the thread's modes are.
#include "kernels/cpu/panel_kernels.hpp"
#include "kernels/cpu/panel_product.hpp"
#include "kernels/cpu/x86/avx512_vector.hpp"

namespace geom::panels {

namespace {

struct Vector : Avx512Vector {
    static constexpr std::int64_t cols_of_unit = 2;
    static Register multiply_add(Register left, Register right, Register sum) {
        return _mm512_dpbf16_ps(sum, pairs(left), pairs(right));
    }

private:
    static __m512bh pairs(Register bits) { return reinterpret_cast<__m512bh>(bits); }
};

}  // namespace

const Kernels avx512_bf16 = {true, accumulate<Vector>, nullptr, dot};

}  // namespace geom::panels
