// Stored weights in fp64, exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.hpp"
#include "core/range.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom {

namespace cuda {

/// A row-major block in the device's memory, its elements aligned to their size.
struct StoredRows {
    const std::byte* data = nullptr;
    DType dtype = DType::bf16;
    double factor = 1.0;  ///< that elements are multiplied by, a power of two
};

/// The blocks as the kernel takes them. Throws Error(internal) for a type that has no products.
std::vector<StoredRows> stored_rows(std::span<const MatrixRef> blocks);

/// Shape of the blocks, and where their fp64 copies go.
struct WidenShape {
    std::int64_t blocks = 0;
    std::int64_t rows = 0;
    std::int64_t hidden = 0;  ///< columns of a block
    Range columns;            ///< those that are widened
    std::int64_t stride = 0;  ///< doubles from one copy to the next
};

/// to[i * stride + row * width + c] = element (row, columns.begin + c) of block i: row-major rows x width, which is
/// column-major width x rows, W^T. `blocks` lies in the device's memory.
void widen(const StoredRows* blocks, const WidenShape& shape, double* to, cudaStream_t stream);

/// The same of one block, which is passed itself; shape.blocks and shape.stride play no part.
void widen(const StoredRows& block, const WidenShape& shape, double* to, cudaStream_t stream);

}  // namespace cuda
}  // namespace geom
