// CRC32C (Castagnoli: polynomial 0x1EDC6F41, reflected), the checksum of journal records and of data read back.
#pragma once

#include <cstddef>
#include <cstdint>

namespace geom {

/// Continues `crc`, which is 0 for the first byte: crc32c(crc32c(0, a), b) is that of a and b in a row.
/// crc32c(0, "123456789", 9) = 0xe3069283. Uses the processor's instruction where it has one.
std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t n);

namespace crc32c_detail {
/// The two ways to get there; `state` is the register, without the inversions before and after.
std::uint32_t by_table(std::uint32_t state, const unsigned char* data, std::size_t n) noexcept;
std::uint32_t by_instruction(std::uint32_t state, const unsigned char* data, std::size_t n) noexcept;
bool has_instruction() noexcept;
}  // namespace crc32c_detail

}  // namespace geom
