// Philox4x32-10, a counter-based generator: a keyed bijection of 128-bit counters (Salmon, Moraes, Dror, Shaw,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Any block is computed on its own, so any rank can make any
// part.
#pragma once

#include <array>
#include <cstdint>

namespace geom {

inline constexpr std::uint32_t philox_multiplier_0 = 0xD2511F53U;
inline constexpr std::uint32_t philox_multiplier_1 = 0xCD9E8D57U;
inline constexpr std::uint32_t philox_key_step_0 = 0x9E3779B9U;  // golden ratio
inline constexpr std::uint32_t philox_key_step_1 = 0xBB67AE85U;  // sqrt(3) - 1
inline constexpr int philox_rounds = 10;

/// The four words of one block.
inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                               std::array<std::uint32_t, 2> key) noexcept {
    for (int round = 0; round < philox_rounds; ++round) {
        const std::uint64_t product_0 = std::uint64_t{philox_multiplier_0} * counter[0];
        const std::uint64_t product_1 = std::uint64_t{philox_multiplier_1} * counter[2];
        counter = {
            static_cast<std::uint32_t>(product_1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product_1),
            static_cast<std::uint32_t>(product_0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product_0)};
        key[0] += philox_key_step_0;
        key[1] += philox_key_step_1;
    }
    return counter;
}

}  // namespace geom
