// Factorisations of one small column-major matrix by LAPACK on the calling thread; scratch memory is the caller's.
// Failures to converge are Error(numerics).
#pragma once

#include <lapacke.h>

#include <cstdint>
#include <utility>

#include "kernels/dense_batch.hpp"

namespace geom::cpu {

inline constexpr int col_major = LAPACK_COL_MAJOR;
inline constexpr std::int64_t block = 64;  ///< columns a blocked LAPACK routine may keep in its workspace
inline constexpr std::int64_t reflector_factor = 65 * 64;  ///< what dgehrd and dormqr keep besides the block

inline lapack_int narrow(std::int64_t n) { return static_cast<lapack_int>(n); }
inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Throws where a routine of LAPACK did not do what it should on a matrix of order n.
void check_lapack(lapack_int info, const char* routine, std::int64_t n);

/// Hands out consecutive 64-byte aligned pieces of a thread's scratch memory.
struct Pieces {
    double* next;
    double* take(std::int64_t doubles) { return std::exchange(next, next + size(doubles)); }
    static std::int64_t size(std::int64_t doubles) { return (doubles + 7) / 8 * 8; }
};

/// gram = lower lower^T from gram's lower triangle; above the diagonal lower is zero.
CholeskyReport cholesky_of(const double* gram, std::int64_t ld_gram, std::int64_t n, double* lower, std::int64_t ld);

/// The smallest |l_ii| / ||row i||; 0 where a row is zero.
double least_sine(const double* lower, std::int64_t ld, std::int64_t n);

/// Singular values of `a`, n x n without gaps, descending, and the leading k of each side's vectors (n x k without
/// gaps). Destroys a. `pieces` has svd_scratch(n, k) doubles.
void leading_singular_vectors(double* a, std::int64_t n, double* values, double* u, double* v, std::int64_t k,
                              Pieces pieces);
std::int64_t svd_scratch(std::int64_t n, std::int64_t k);

/// Ascending, from the lower triangle of `a`, which is destroyed. `pieces` has symmetric_scratch(n) doubles.
void symmetric_eigenvalues_of(double* a, std::int64_t ld, std::int64_t n, double* values, Pieces pieces);
inline std::int64_t symmetric_scratch(std::int64_t n) { return 11 * n + 64; }

/// Conjugates adjacent, the positive imaginary part first: dgeev without vectors. `pieces` has general_scratch(n)
/// doubles.
void general_eigenvalues_of(const double* matrix, std::int64_t ld, std::int64_t n, double* re, double* im,
                            Pieces pieces);
std::int64_t general_scratch(std::int64_t n);

}  // namespace geom::cpu
