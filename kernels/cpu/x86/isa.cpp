#include "kernels/cpu/isa.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

namespace geom {

namespace {

bool tiles_permitted() {
    constexpr int request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr int tile_data = 18;               // XFEATURE_XTILEDATA
    return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

bool have_avx2() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }

bool have_avx512() {
    return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}

bool have_amx_bf16() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    constexpr unsigned amx_bf16 = 1U << 22, amx_tile = 1U << 24;
    return (d & amx_bf16) != 0 && (d & amx_tile) != 0 && tiles_permitted();
}

}  // namespace

std::span<const Isa> processor_isas() {
    static const std::vector<Isa> isas = [] {
        std::vector<Isa> all = {Isa::portable};
        const auto add = [&](Isa isa, bool present) {
            present ? all.push_back(isa) : void();
            return present;
        };
        if (add(Isa::avx2, have_avx2()) && add(Isa::avx512, have_avx512()) &&
            add(Isa::avx512_bf16, __builtin_cpu_supports("avx512bf16") != 0)) {
            add(Isa::amx_bf16, have_amx_bf16());
        }
        return all;
    }();
    return isas;
}

std::string processor_name() {
    std::array<unsigned, 12> words{};
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
        if (__get_cpuid(0x80000002U + leaf, &words[4 * leaf], &words[4 * leaf + 1], &words[4 * leaf + 2],
                        &words[4 * leaf + 3]) == 0) {
            return {};
        }
    }
    std::array<char, 49> text{};
    std::memcpy(text.data(), words.data(), 48);
    return text.data();
}

}  // namespace geom
