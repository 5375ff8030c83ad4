#include "checkpoint/x86/wide_bodies.hpp"

namespace geom {

namespace {

constexpr WideGenerator bodies[] = {generate_avx512, generate_avx2};

bool have_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool have_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

}  // namespace

std::span<const WideGenerator> wide_generators() noexcept {
    if (!have_avx2()) return {};
    return std::span(bodies).subspan(have_avx512() ? 0 : 1);
}

}  // namespace geom
