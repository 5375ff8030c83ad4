// The passes over matrices that CudaDenseBatch needs between library calls. Pointer arrays lie in the device's memory;
// everything else is as in kernels/dense_batch.hpp.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.hpp"

namespace geom::cuda {

/// Matrices of a batch as a kernel sees them.
struct Blocks {
    double* const* at = nullptr;
    std::int64_t ld = 0;
};

/// to[i] = from[i], rows x cols.
void copy_blocks(std::int64_t count, Blocks from, std::int64_t rows, std::int64_t cols, Blocks to, cudaStream_t stream);

/// The lower triangle of from[i] (n x n), and zeros above the diagonal.
void copy_lower(std::int64_t count, Blocks from, std::int64_t n, Blocks to, cudaStream_t stream);

/// Zeros above the diagonal of lower[i]; diagonals[i * 2n ..]: the n diagonal elements of gram[i], then lower[i]'s.
void finish_lower(std::int64_t count, Blocks gram, Blocks lower, std::int64_t n, double* diagonals,
                  cudaStream_t stream);

/// L = R^T (n x n) from the hidden x n matrix that Dgeqrf left; columns beyond `hidden` are zero.
/// sines[row] = |l_ii| / ||row i||, 0 where the row is zero.
void lower_of_qr(const double* factored, std::int64_t hidden, double* lower, std::int64_t ld, std::int64_t n,
                 double* sines, cudaStream_t stream);

/// The upper `kept` rows of a matrix, zeros below: rows x cols.
struct PadShape {
    std::int64_t kept = 0, rows = 0, cols = 0;
};
void pad_rows(const double* from, std::int64_t ld_from, PadShape shape, double* to, std::int64_t ld_to,
              cudaStream_t stream);

/// From products[i] = B = A^T [C, E] (n x 2n without gaps) the lower triangle of [[B1 + B1^T, B2], [B2^T, 0]] to
/// out[i]; squares[i * n + j]: what column j adds to ||[[B1 - B1^T, B2], [-B2^T, 0]]||^2.
void finish_exchange(std::int64_t count, const double* products, std::int64_t n, Blocks out, double* squares,
                     cudaStream_t stream);

}  // namespace geom::cuda
