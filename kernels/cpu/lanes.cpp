// With the baseline's instructions.
#include "kernels/cpu/baseline_lanes.hpp"
#include "kernels/cpu/lane_kernels.hpp"

namespace geom::lanes {

namespace {

struct Vector {
    using Register = float __attribute__((vector_size(16)));
    using Bits = std::int32_t __attribute__((vector_size(16)));
    using Halves = std::uint16_t __attribute__((vector_size(8)));
    static constexpr int width = 4, rows = 2, panels = 1;
    static Register zero() { return Register{}; }
    static Register load(const float* from) {
        Register loaded;
        __builtin_memcpy(&loaded, from, sizeof loaded);
        return loaded;
    }
    static Register spread(const float* from) { return Register{} + *from; }
    static Register multiply_add(Register left, Register right, Register sum) { return left * right + sum; }
    static Register add(Register a, Register b) { return a + b; }
    static void store(float* to, Register sums) { __builtin_memcpy(to, &sums, sizeof sums); }
};

}  // namespace

const Kernels baseline = kernels_with<Vector>("baseline-f32");

}  // namespace geom::lanes
