// CRC32C by the processor's crc32 instruction, which takes 8 bytes in 3 cycles but can start one every cycle: three
// lanes run at once, and two carry-less products move the first two over the bytes that follow them.
//
//   block:  | lane 0: n bytes | lane 1: n bytes | lane 2: n bytes | 8 bytes |
//   state = crc(lane 2 from 0), then the last 8 bytes xor (lane 0 · x^a) xor (lane 1 · x^b)
//
// In reflected order a 32 × 32 bit product comes out multiplied by x, and the instruction multiplies what it takes in
// by x^32: so a lane that k bytes follow (the last 8 included) is multiplied by x^(8k - 33) mod P.
#include <nmmintrin.h>
#include <wmmintrin.h>

#include <cstring>

#include "core/crc32c.hpp"

namespace geom::crc32c_detail {

namespace {

constexpr std::size_t long_lane = 4096, short_lane = 256;  // the first for throughput, the second for what remains

/// x^n mod P, reflected: x^0 is the top bit, and times x is a shift to the right.
constexpr std::uint32_t power(std::size_t n) {
    std::uint32_t value = 0x80000000U;
    for (; n > 0; --n) value = (value >> 1) ^ ((value & 1U) != 0 ? 0x82f63b78U : 0U);
    return value;
}

std::uint64_t load(const unsigned char* data) {
    std::uint64_t word = 0;
    std::memcpy(&word, data, sizeof word);
    return word;
}

std::uint64_t product(std::uint64_t a, std::uint32_t b) {
    const __m128i result = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(a)),
                                                _mm_cvtsi64_si128(static_cast<long long>(b)), 0);
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(result));
}

template <std::size_t lane>
std::uint64_t blocks(std::uint64_t state, const unsigned char*& data, std::size_t& n) {
    constexpr std::uint32_t over_two = power(8 * (2 * lane + 8) - 33), over_one = power(8 * (lane + 8) - 33);
    for (; n >= 3 * lane + 8; n -= 3 * lane + 8, data += 3 * lane + 8) {
        std::uint64_t first = state, second = 0, third = 0;
        for (std::size_t i = 0; i < lane; i += 8) {
            first = _mm_crc32_u64(first, load(data + i));
            second = _mm_crc32_u64(second, load(data + lane + i));
            third = _mm_crc32_u64(third, load(data + 2 * lane + i));
        }
        state = _mm_crc32_u64(third, load(data + 3 * lane) ^ product(first, over_two) ^ product(second, over_one));
    }
    return state;
}

}  // namespace

std::uint32_t by_instruction(std::uint32_t state, const unsigned char* data, std::size_t n) noexcept {
    std::uint64_t wide = blocks<long_lane>(state, data, n);
    wide = blocks<short_lane>(wide, data, n);
    for (; n >= 8; n -= 8, data += 8) wide = _mm_crc32_u64(wide, load(data));
    auto narrow = static_cast<std::uint32_t>(wide);
    for (; n > 0; --n, ++data) narrow = _mm_crc32_u8(narrow, *data);
    return narrow;
}

bool has_instruction() noexcept {
    static const bool has = __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("pclmul") != 0;
    return has;
}

}  // namespace geom::crc32c_detail
