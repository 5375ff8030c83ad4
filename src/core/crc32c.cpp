#include "core/crc32c.hpp"

#include <array>

namespace geom {

namespace {

constexpr std::uint32_t polynomial = 0x82f63b78;  // reflected: bit 31 is the constant term

/// tables[k][b]: what byte b does to the register when k more bytes follow it.
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Tables make_tables() {
    Tables tables{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t state = b;
        for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1U) != 0 ? polynomial : 0U);
        tables[0][b] = state;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t b = 0; b < 256; ++b) {
            tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xffU];
        }
    }
    return tables;
}

constexpr Tables tables = make_tables();

}  // namespace

namespace crc32c_detail {

std::uint32_t by_table(std::uint32_t state, const unsigned char* data, std::size_t n) noexcept {
    for (; n >= 8; n -= 8, data += 8) {
        std::uint32_t next = 0;
        state ^= std::uint32_t{data[0]} | std::uint32_t{data[1]} << 8 | std::uint32_t{data[2]} << 16 |
                 std::uint32_t{data[3]} << 24;
        for (std::size_t k = 0; k < 4; ++k) {
            next ^= tables[7 - k][(state >> (8 * k)) & 0xffU] ^ tables[3 - k][data[4 + k]];
        }
        state = next;
    }
    for (; n > 0; --n, ++data) state = (state >> 8) ^ tables[0][(state ^ *data) & 0xffU];
    return state;
}

}  // namespace crc32c_detail

std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t n) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    return crc32c_detail::has_instruction() ? ~crc32c_detail::by_instruction(~crc, bytes, n)
                                            : ~crc32c_detail::by_table(~crc, bytes, n);
}

}  // namespace geom
