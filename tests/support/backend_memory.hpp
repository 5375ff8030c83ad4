// Bytes to and from a backend's memory, wherever it is.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/backend.hpp"

namespace geom::test {

inline Buffer to_backend(Backend& backend, std::span<const std::byte> bytes) {
    const auto size = std::ssize(bytes);
    Buffer place = backend.allocate(size);
    const Buffer staging = backend.queue().allocate_staging(size);
    if (size > 0) std::memcpy(staging.data(), bytes.data(), bytes.size());
    backend.queue().copy(place.data(), staging.data(), size);
    backend.queue().wait();
    return place;
}

inline std::vector<std::byte> from_backend(Backend& backend, const std::byte* data, std::int64_t bytes) {
    const Buffer staging = backend.queue().allocate_staging(bytes);
    backend.queue().copy(staging.data(), data, bytes);
    backend.queue().wait();
    return {staging.data(), staging.data() + bytes};
}

}  // namespace geom::test
