// All singular values and the leading right singular vectors of one large matrix on the calling thread; memory is the
// caller's. As kernels/matrices.hpp says, by way of the Gram matrix of the short side or by QR.
#pragma once

#include <cstdint>

#include "kernels/cpu/large_matrix.hpp"

namespace geom::cpu {

/// From the lower triangle of a's Gram matrix (gram_of), which is destroyed. `pieces` has vectors_scratch doubles.
LeadingVectors leading_of_gram(const MatrixRef& a, double* gram, std::int64_t k, Pieces pieces);

/// From A itself; `r` has min(m, n)^2 doubles, `pieces` vectors_scratch.
LeadingVectors leading_directly(const MatrixRef& a, double* r, std::int64_t k, Pieces pieces);

/// Of either way.
std::int64_t vectors_scratch(const MatrixSize& size, std::int64_t k);

}  // namespace geom::cpu
