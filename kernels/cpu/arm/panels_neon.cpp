// f32 products with NEON, which every aarch64 has; blocks of bf16 are widened.
#include <arm_neon.h>

#include "kernels/cpu/arm/neon_dot.hpp"
#include "kernels/cpu/panel_kernels.hpp"
#include "kernels/cpu/panel_product.hpp"

namespace geom::panels {

namespace {

struct Vector {
    using Register = float32x4_t;
    static constexpr int width = 4, rows = 8;
    static constexpr std::int64_t cols_of_unit = 1;

    static Register zero() { return vdupq_n_f32(0.0F); }
    static Register load(const std::byte* from) { return vld1q_f32(reinterpret_cast<const float*>(from)); }
    static Register spread(const std::byte* unit) { return vld1q_dup_f32(reinterpret_cast<const float*>(unit)); }
    static Register multiply_add(Register left, Register right, Register sum) { return vfmaq_f32(sum, left, right); }
    static Register add(Register a, Register b) { return vaddq_f32(a, b); }
    static Register load_sums(const float* from) { return vld1q_f32(from); }
    static void store(float* to, Register sums) { vst1q_f32(to, sums); }
};

void widen(const std::byte* from, std::int64_t steps, float* to) {
    const uint32x4_t upper = vdupq_n_u32(0xffff0000U);
    for (std::int64_t k = 0; k < steps; ++k) {
        for (int quarter = 0; quarter < 16; quarter += 4) {
            const uint32x4_t pairs =
                vld1q_u32(reinterpret_cast<const std::uint32_t*>(from + k * step_bytes + quarter * unit_bytes));
            vst1q_f32(to + 32 * k + quarter, vreinterpretq_f32_u32(vandq_u32(pairs, upper)));
            vst1q_f32(to + 32 * k + 16 + quarter, vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)));
        }
    }
}

}  // namespace

const Kernels neon_f32 = {false, accumulate<Vector>, widen, dot};

}  // namespace geom::panels
