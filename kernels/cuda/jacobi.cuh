// Singular values and leading singular vectors of a batch of small square matrices: QR with pivoting (jacobi_qr.cu),
// one-sided Jacobi on R^T (jacobi.cu), vectors for values that are zero (jacobi_complete.cu).
#pragma once

#include <cstdint>

#include "kernels/cuda/device.hpp"

namespace geom::cuda {

/// How it went with one matrix.
struct SvdStatus {
    int converged = 0;
    int rank = 0;      ///< values that are not zero, beside which vectors had to be made up
    int exponent = 0;  ///< the matrix was divided by this power of two
};

/// Device memory of a batch: count matrices of order n. Of scratch memory it says what each matrix takes.
struct SvdBatch {
    std::int64_t count = 0;
    std::int64_t n = 0;
    std::int64_t vectors = 0;     ///< pairs wanted of each
    double* matrices = nullptr;   ///< count * n * n, column-major without gaps; become Householder vectors
    double* triangles = nullptr;  ///< scratch, n * n: R^T, then its columns made orthogonal
    double* rotations = nullptr;  ///< scratch, n * n
    double* taus = nullptr;       ///< scratch, n
    int* pivots = nullptr;        ///< scratch, n: column of the matrix that came to each place
    int* order = nullptr;         ///< scratch, n: column of the triangle that holds each value
    double* values = nullptr;     ///< count * n: singular values, descending
    SvdStatus* status = nullptr;  ///< count
    double* const* u = nullptr;   ///< n x vectors each, orthonormal
    std::int64_t ld_u = 0;
    double* const* v = nullptr;
    std::int64_t ld_v = 0;
};

/// Issues it to the device's stream. Where status[i].converged is 0 the results of matrix i are worth nothing.
void jacobi_svd(const SvdBatch& batch, const Device& device);

constexpr int jacobi_most_sweeps = 40;

// Its steps.
void factor_with_pivots(const SvdBatch& batch, const Device& device);
void orthogonalise_triangles(const SvdBatch& batch, const Device& device);  ///< right vectors of R^T to u, left to v
void complete_vectors(const SvdBatch& batch, const Device& device);         ///< columns of v beyond the rank
void unfactor_vectors(const SvdBatch& batch, const Device& device);         ///< u = Q u, v = P v

}  // namespace geom::cuda
