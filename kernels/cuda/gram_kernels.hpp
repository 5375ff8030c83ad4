// The passes over Gram matrices between library calls. Square matrices lie behind one another, column-major without
// gaps, in the device's memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace geom::cuda {

/// to[i * n + j] = element (j, j) of matrix i.
void copy_diagonals(const double* matrices, std::int64_t count, std::int64_t n, double* to, cudaStream_t stream);

/// An n x n matrix times a power of two.
void scale_matrix(double* matrix, std::int64_t n, double factor, cudaStream_t stream);

}  // namespace geom::cuda
