#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/crc32c.hpp"

namespace {

using geom::crc32c;

std::vector<unsigned char> scrambled(std::size_t n) {
    std::vector<unsigned char> bytes(n);
    std::uint64_t state = 88172645463325252U;
    for (auto& byte : bytes) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        byte = static_cast<unsigned char>(state >> 32);
    }
    return bytes;
}

/// A bit at a time, as the polynomial is written.
std::uint32_t reference(std::uint32_t state, const unsigned char* data, std::size_t n) {
    for (; n > 0; --n, ++data) {
        state ^= *data;
        for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1U) != 0 ? 0x82f63b78U : 0U);
    }
    return state;
}

TEST(Crc32c, GivesTheKnownAnswers) {
    EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283U);
    EXPECT_EQ(crc32c(0, "", 0), 0U);
    EXPECT_EQ(crc32c(0, std::string(32, '\0').data(), 32), 0x8a9136aaU);  // RFC 3720, B.4
    EXPECT_EQ(crc32c(0, std::string(32, '\xff').data(), 32), 0x62a8ab43U);
}

TEST(Crc32c, ContinuesWhereItStopped) {
    const auto bytes = scrambled(100'000);
    const auto whole = crc32c(0, bytes.data(), bytes.size());
    for (const std::size_t cut :
         {std::size_t{0}, std::size_t{1}, std::size_t{777}, std::size_t{12'297}, bytes.size()}) {
        EXPECT_EQ(crc32c(crc32c(0, bytes.data(), cut), bytes.data() + cut, bytes.size() - cut), whole) << cut;
    }
}

TEST(Crc32c, IsTheSameByTableAndByInstructionAtEveryLengthAndAlignment) {
    if (!geom::crc32c_detail::has_instruction()) GTEST_SKIP() << "this processor has no crc32 instruction";
    const auto bytes = scrambled(40'000);
    for (std::size_t n = 0; n < 2'000; ++n) {
        const unsigned char* data = bytes.data() + n % 9;
        const auto expected = reference(0x12345678U, data, n);
        ASSERT_EQ(geom::crc32c_detail::by_table(0x12345678U, data, n), expected) << n;
        ASSERT_EQ(geom::crc32c_detail::by_instruction(0x12345678U, data, n), expected) << n;
    }
    for (std::size_t n = 12'280; n < bytes.size() - 9; n += 371) {
        ASSERT_EQ(geom::crc32c_detail::by_instruction(0, bytes.data() + n % 9, n),
                  geom::crc32c_detail::by_table(0, bytes.data() + n % 9, n))
            << n;
    }
}

}  // namespace
