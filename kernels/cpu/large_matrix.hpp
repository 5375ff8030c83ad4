// Gram matrices, eigenvalues and singular values of one large matrix on the calling thread; memory is the caller's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/range.hpp"
#include "kernels/cpu/one_matrix.hpp"
#include "kernels/matrices.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom::cpu {

/// What multiplies: OpenBLAS, or gram_tiles.hpp where there is AVX-512.
enum class GramPath : std::uint8_t { library, tiles };

/// Columns of the long side that are widened, and summed, at a time.
inline constexpr std::int64_t gram_panel = 256;

/// The lower triangle of gram = A A^T, or A^T A where A has more rows than columns; column-major without gaps.
/// `pieces` has gram_scratch doubles.
void gram_of(const MatrixRef& a, GramPath path, double* gram, Pieces pieces);
std::int64_t gram_scratch(const MatrixSize& size);

/// Some rows and columns of the lower triangle of gram (+)= S^T S, n x n: `cols` is `rows` or lies before it, both are
/// at most `gram_tile` long. `pieces` has tile_scratch() doubles.
inline constexpr std::int64_t gram_tile = 480;
struct GramTile {
    Range rows, cols;
    GramPath path = GramPath::library;
};
void add_gram_tile(const MatrixRef& strip, const GramTile& tile, bool first, double* gram, Pieces pieces);
inline std::int64_t tile_scratch() { return 4 * gram_tile * gram_panel; }

double trace_of(const double* gram, std::int64_t n);
/// Whether sums of squares with this trace have neither overflowed nor lost digits to underflow.
inline bool in_range(double trace) { return trace > 1e-200 && trace < 1e200; }
/// Throws Error(numerics) where it is not finite.
void check_trace(double trace, const MatrixSize& size);

/// The roots of the largest eigenvalues of a Gram matrix, which come ascending, and their floor: see
/// kernels/matrices.hpp, K being gram_panel.
SingularValues roots_of(std::span<const double> squares, double trace, const MatrixSize& size);

/// The roots of the largest eigenvalues of a Gram matrix of order n of a matrix of this size, and their floor (see
/// kernels/matrices.hpp). Destroys gram; `pieces` has eigenvalue_scratch(n) doubles.
SingularValues roots_of_gram(double* gram, std::int64_t n, const MatrixSize& size, Pieces pieces);
std::int64_t eigenvalue_scratch(std::int64_t n);

/// R, k x k, k = min(m, n), of the QR factorisation of 2^-e A, or of its transpose where A has more columns than rows;
/// returns e, nothing for a zero matrix. `pieces` has direct_scratch doubles.
std::optional<int> scaled_triangle_of(const MatrixRef& a, double* r, Pieces pieces);

/// By QR and bidiagonalisation. `r` has k x k doubles, k = min(m, n), `pieces` direct_scratch.
SingularValues singular_values_of(const MatrixRef& a, double* r, Pieces pieces);
std::int64_t direct_scratch(const MatrixSize& size);

}  // namespace geom::cpu
