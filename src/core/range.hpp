// Half-open ranges of 64-bit indices.
#pragma once

#include <algorithm>
#include <cstdint>

namespace geom {

struct Range {
    std::int64_t begin = 0;
    std::int64_t end = 0;

    std::int64_t size() const noexcept { return end - begin; }
    bool empty() const noexcept { return end <= begin; }
    bool contains(std::int64_t i) const noexcept { return begin <= i && i < end; }
    friend bool operator==(const Range&, const Range&) = default;
};

/// The part-th of `parts` contiguous shares of n things: sizes differ by at most one, the larger ones first.
inline Range share(std::int64_t n, std::int64_t parts, std::int64_t part) noexcept {
    const std::int64_t base = n / parts, extra = n % parts;
    const std::int64_t begin = part * base + std::min(part, extra);
    return {begin, begin + base + (part < extra ? 1 : 0)};
}

}  // namespace geom
