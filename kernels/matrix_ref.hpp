// A matrix as it is stored, in a backend's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"

namespace geom {

/// A contiguous row-major matrix.
struct MatrixRef {
    const std::byte* data = nullptr;
    DType dtype = DType::bf16;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
};

}  // namespace geom
