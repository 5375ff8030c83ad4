// The orthogonal polar factor of a square matrix in fp64 by products alone: QDWH (Nakatsukasa, Bai, Gygi 2010;
// Nakatsukasa, Higham 2013) with Cholesky factors,
//
//     X <- (b/c) X + (a - b/c) X (I + c X^T X)^-1,
//
// a, b, c from a lower bound l of X's singular values, which grows at every step: from 1e-8 to 1 in five or six. A
// matrix whose least singular value is smaller goes through the last of them again. The first steps' Cholesky factors
// cost digits in directions of small singular values alone: T's residuals are right to 1e-7 (see kernels/matrices.hpp).
#pragma once

#include "kernels/cpu/product_tiles.hpp"

namespace geom::cpu {

struct PolarReport {
    bool unique = true;    ///< false: a singular value is below 1e-12 of the largest, as far as can be told
    double deviation = 0;  ///< ||X^T X - I||_F, at most 1e-8
    std::int64_t steps = 0;
};

/// Replaces X, n x n column-major without gaps, by its polar factor; `square` has n x n doubles, the team's scratch
/// polar_scratch(n). Throws Error(numerics) where it does not converge: NaN or infinity.
PolarReport polar_factor(const Team& team, GramPath path, double* x, std::int64_t n, double* square);
std::int64_t polar_scratch(std::int64_t n);

/// A tiled Cholesky factorisation: how it went, and the extremes of the factor's diagonal.
struct TiledCholesky {
    bool complete = true;
    double least = 0, largest = 0;
};

/// From the lower triangle of G, n x n without gaps: lower triangle of L with L L^T = shift I + scale G in its place,
/// and zeros above the diagonal in tiles of product_tile that it crosses. The team's scratch has polar_scratch(n).
struct Shifted {
    double shift = 0, scale = 1;
};
TiledCholesky cholesky_in_tiles(const Team& team, GramPath path, double* g, std::int64_t n, const Shifted& shifted);

}  // namespace geom::cpu
