// What a benchmark compares with: the machine's own large product and copy. Nothing else calls them.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace geom {

/// C (m x n) = A (m x k) B (k x n).
struct GemmShape {
    std::int64_t m = 0;
    std::int64_t n = 0;
    std::int64_t k = 0;

    double flops() const noexcept {
        return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    }
    bool operator==(const GemmShape&) const = default;
};

struct Yardstick {
    std::string name;           ///< "bf16 oneDNN 2.6.3", "f32 OpenBLAS", "bf16 cuBLAS"
    std::function<void()> run;  ///< once, to its end; empty: not in this build
};

/// Operands of a product: any sign and mantissa, magnitudes from 2^-4 to 1. Zeros would run faster than real numbers.
inline std::vector<std::uint16_t> random_bf16(std::int64_t elements) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(elements));
    std::minstd_rand draw(1);
    for (std::uint16_t& value : values) {
        const auto bits = static_cast<unsigned>(draw());
        value = static_cast<std::uint16_t>((bits & 0x807fU) | (0x3d80U - 0x80U * ((bits >> 16) & 3U)));
    }
    return values;
}

}  // namespace geom
