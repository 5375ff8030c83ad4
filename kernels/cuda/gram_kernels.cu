// A block of threads takes the diagonal of one matrix, or a column of it. Diagonals move 16 bytes an element in sectors
// of 32; scaling, which only weights near the ends of fp64's range need, moves a matrix twice.
#include "kernels/cuda/gram_kernels.hpp"
#include "kernels/cuda/launch.cuh"

namespace geom::cuda {

namespace {

constexpr int threads = 256;

__global__ void copy_diagonal(const double* matrices, std::int64_t n, double* to) {
    const double* const matrix = matrices + blockIdx.x * n * n;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) to[blockIdx.x * n + i] = matrix[i + i * n];
}

__global__ void scale_column(double* matrix, std::int64_t n, double factor) {
    double* const column = matrix + blockIdx.x * n;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) column[i] *= factor;
}

}  // namespace

void copy_diagonals(const double* matrices, std::int64_t count, std::int64_t n, double* to, cudaStream_t stream) {
    launch("copy_diagonal", copy_diagonal, {static_cast<unsigned>(count), threads}, stream, matrices, n, to);
}

void scale_matrix(double* matrix, std::int64_t n, double factor, cudaStream_t stream) {
    launch("scale_column", scale_column, {static_cast<unsigned>(n), threads}, stream, matrix, n, factor);
}

}  // namespace geom::cuda
