#include <cpuid.h>

#include "checkpoint/x86/wide_bodies.hpp"

namespace geom {

namespace {

constexpr WideGenerator bodies[] = {generate_avx512, generate_avx2};

bool have_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool have_f16c() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool have_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && have_f16c(); }

}  // namespace

std::span<const WideGenerator> wide_generators() noexcept {
    if (!have_avx2()) return {};
    return std::span(bodies).subspan(have_avx512() ? 0 : 1);
}

}  // namespace geom
