// Processors other than x86-64: the table serves.
#include "core/crc32c.hpp"

namespace geom::crc32c_detail {

std::uint32_t by_instruction(std::uint32_t state, const unsigned char* data, std::size_t n) noexcept {
    return by_table(state, data, n);
}

bool has_instruction() noexcept { return false; }

}  // namespace geom::crc32c_detail
