// Weights as stored (bf16, f16, f32, f64) to fp64. A block of threads takes one row of one matrix: its type is the same
// for all of them, and neighbouring threads read and write neighbouring elements. Moves 2 to 8 + 8 bytes an element;
// what is written is read by a product that follows, from L2 where a panel of it fits (50 MB on H100). Exact.
#include <cmath>
#include <string>

#include "core/error.hpp"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/widen.hpp"

namespace geom::cuda {

namespace {

constexpr int threads = 256;

template <class Stored>
__device__ void widen_row(const StoredRows& block, std::int64_t first, std::int64_t width, double* to) {
    const Stored* from = reinterpret_cast<const Stored*>(block.data) + first;
    for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) to[i] = widened<double>(from[i]) * block.factor;
}

/// Row blockIdx.y.
__device__ void widen_row_of(const StoredRows& block, const WidenShape& shape, double* to) {
    const std::int64_t row = blockIdx.y, width = shape.columns.end - shape.columns.begin;
    const std::int64_t first = row * shape.hidden + shape.columns.begin;
    double* const out = to + row * width;
    switch (block.dtype) {
        case DType::bf16:
            return widen_row<Bf16>(block, first, width, out);
        case DType::f16:
            return widen_row<__half>(block, first, width, out);
        case DType::f32:
            return widen_row<float>(block, first, width, out);
        default:
            return widen_row<double>(block, first, width, out);
    }
}

__global__ void widen_rows(const StoredRows* blocks, WidenShape shape, double* to) {
    widen_row_of(blocks[blockIdx.x], shape, to + blockIdx.x * shape.stride);
}

__global__ void widen_rows_of_one(StoredRows block, WidenShape shape, double* to) { widen_row_of(block, shape, to); }

}  // namespace

std::vector<StoredRows> stored_rows(std::span<const MatrixRef> blocks) {
    std::vector<StoredRows> rows;
    rows.reserve(blocks.size());
    for (const MatrixRef& block : blocks) {
        const bool known = block.dtype == DType::bf16 || block.dtype == DType::f16 || block.dtype == DType::f32 ||
                           block.dtype == DType::f64;
        if (!known) throw Error(ExitCode::internal, "no products of " + std::string(name_of(block.dtype)) + " weights");
        rows.push_back({block.data, block.dtype, std::ldexp(1.0, -block.exponent)});
    }
    return rows;
}

void widen(const StoredRows* blocks, const WidenShape& shape, double* to, cudaStream_t stream) {
    if (shape.blocks == 0 || shape.rows == 0 || shape.columns.empty()) return;
    const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.rows));
    launch("widen_rows", widen_rows, {grid, threads}, stream, blocks, shape, to);
}

void widen(const StoredRows& block, const WidenShape& shape, double* to, cudaStream_t stream) {
    if (shape.rows == 0 || shape.columns.empty()) return;
    const dim3 grid(1, static_cast<unsigned>(shape.rows));
    launch("widen_rows_of_one", widen_rows_of_one, {grid, threads}, stream, block, shape, to);
}

}  // namespace geom::cuda
