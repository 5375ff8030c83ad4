#include "kernels/cpu/panels.hpp"

#include <algorithm>
#include <cstring>

namespace geom::panels {

void pack(const std::byte* source, std::int64_t rows, std::int64_t row_bytes, std::byte* out) {
    const std::int64_t whole = row_bytes / unit_bytes, rest = row_bytes % unit_bytes;
    const std::int64_t panel_bytes = (whole + (rest > 0 ? 1 : 0)) * step_bytes;
    for (std::int64_t row = 0; row < rows; row += rows_of_panel, out += panel_bytes) {
        const std::int64_t here = std::min(rows_of_panel, rows - row);
        if (here < rows_of_panel || rest > 0) std::memset(out, 0, static_cast<std::size_t>(panel_bytes));
        for (std::int64_t i = 0; i < here; ++i) {
            const std::byte* from = source + (row + i) * row_bytes;
            std::byte* to = out + i * unit_bytes;
            for (std::int64_t k = 0; k < whole; ++k)
                std::memcpy(to + k * step_bytes, from + k * unit_bytes, unit_bytes);
            std::memcpy(to + whole * step_bytes, from + whole * unit_bytes, static_cast<std::size_t>(rest));
        }
    }
}

}  // namespace geom::panels
