#include "kernels/cpu/large_matrix.hpp"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "kernels/cpu/gram_tiles.hpp"
#include "kernels/cpu/stored_rows.hpp"

// LAPACK's reduction of a symmetric matrix to a band; LAPACKE does not name it.
extern "C" void dsytrd_sy2sb_(const char* uplo, const lapack_int* n, const lapack_int* kd, double* a,
                              const lapack_int* lda, double* ab, const lapack_int* ldab, double* tau, double* work,
                              const lapack_int* lwork, lapack_int* info, std::size_t);

namespace geom::cpu {

namespace {

constexpr double unit = std::numeric_limits<double>::epsilon() / 2, eps = std::numeric_limits<double>::epsilon();

/// Some rows of a stored matrix, all columns.
MatrixRef rows_of(const MatrixRef& a, Range rows) {
    return {a.data + rows.begin * a.cols * size_of(a.dtype), a.dtype, rows.size(), a.cols};
}

/// Calls f(range) for one panel of the long side after the other.
template <class F>
void for_each_gram_panel(std::int64_t length, F f) {
    for (std::int64_t begin = 0; begin < length; begin += gram_panel)
        f(Range{begin, std::min(begin + gram_panel, length)});
}

std::int64_t short_side(const MatrixSize& size) { return std::min(size.rows, size.cols); }
std::int64_t long_side(const MatrixSize& size) { return std::max(size.rows, size.cols); }

void check_finite(double number, const MatrixSize& size) {
    if (std::isfinite(number)) return;
    throw Error(ExitCode::numerics, fmt::format("a matrix of {} x {} holds NaN, infinity, or numbers whose squares are "
                                                "beyond fp64",
                                                size.rows, size.cols));
}

}  // namespace

// --- Gram matrices ---------------------------------------------------------------------------------------------------

std::int64_t gram_scratch(const MatrixSize& size) {
    const std::int64_t n = short_side(size), width = std::min(gram_panel, long_side(size));
    return Pieces::size(n * width) + Pieces::size(packed_doubles(n, width));
}

void gram_of(const MatrixRef& a, GramPath path, double* gram, Pieces pieces) {
    const bool wide = a.rows <= a.cols;
    const std::int64_t n = std::min(a.rows, a.cols), length = std::max(a.rows, a.cols);
    double* widened = pieces.take(n * std::min(gram_panel, length));
    double* packed = pieces.next;
    for_each_gram_panel(length, [&](Range part) {
        const std::int64_t width = part.size();
        if (wide) {
            widen(a, part, widened);
        } else {
            widen(rows_of(a, part), {0, a.cols}, widened);
        }
        const bool first = part.begin == 0;
        if (path == GramPath::tiles) {
            pack_slabs({widened, n, width, wide ? width : 1, wide ? 1 : n}, packed);
            add_packed_product({packed, packed, {0, n}, {0, n}, width}, n, first, gram);
        } else {
            cblas_dsyrk(CblasColMajor, CblasLower, wide ? CblasTrans : CblasNoTrans, narrow(n), narrow(width), 1.0,
                        widened, narrow(wide ? width : n), first ? 0.0 : 1.0, gram, narrow(n));
        }
    });
}

namespace {

/// Both operands of a tile, widened: column-major rows x width and cols x width.
struct TileOperands {
    const double* left;
    const double* right;
    std::int64_t width;
};

void add_library_tile(const TileOperands& x, const GramTile& tile, std::int64_t n, bool first, double* gram) {
    const lapack_int rows = narrow(tile.rows.size()), cols = narrow(tile.cols.size()), width = narrow(x.width);
    double* out = gram + tile.rows.begin + tile.cols.begin * n;
    if (tile.rows.begin == tile.cols.begin) {
        cblas_dsyrk(CblasColMajor, CblasLower, CblasNoTrans, rows, width, 1.0, x.left, rows, first ? 0.0 : 1.0, out,
                    narrow(n));
    } else {
        cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, rows, cols, width, 1.0, x.left, rows, x.right, cols,
                    first ? 0.0 : 1.0, out, narrow(n));
    }
}

void add_packed_tile(const TileOperands& x, const GramTile& tile, std::int64_t n, bool first, double* gram,
                     Pieces pieces) {
    const std::int64_t rows = tile.rows.size(), cols = tile.cols.size();
    double* left = pieces.take(packed_doubles(rows, x.width));
    double* right = pieces.take(packed_doubles(cols, x.width));
    pack_slabs({x.left, rows, x.width, 1, rows}, left);
    pack_slabs({x.right, cols, x.width, 1, cols}, right);
    add_packed_product({left, right, tile.rows, tile.cols, x.width}, n, first, gram);
}

}  // namespace

void add_gram_tile(const MatrixRef& strip, const GramTile& tile, bool first, double* gram, Pieces pieces) {
    double* left = pieces.take(gram_tile * gram_panel);
    double* right = pieces.take(gram_tile * gram_panel);
    for_each_gram_panel(strip.rows, [&](Range part) {
        widen(rows_of(strip, part), tile.rows, left);
        widen(rows_of(strip, part), tile.cols, right);
        const TileOperands operands{left, right, part.size()};
        const bool overwrite = first && part.begin == 0;
        if (tile.path == GramPath::tiles) {
            add_packed_tile(operands, tile, strip.cols, overwrite, gram, pieces);
        } else {
            add_library_tile(operands, tile, strip.cols, overwrite, gram);
        }
    });
}

// --- eigenvalues -----------------------------------------------------------------------------------------------------

namespace {

// A matrix that does not fit the cache is brought to a band first, by products, and the band to three diagonals.
constexpr std::int64_t two_stages_pay = 1536, band = 32;

std::int64_t reduction_work(std::int64_t n) {
    return n < two_stages_pay ? block * n : 2 * n * block + 2 * band * band + n;
}

void tridiagonal_in_two_stages(double* a, std::int64_t n, double* diagonal, double* beside, Pieces pieces) {
    const lapack_int order = narrow(n), width = narrow(band), ld_band = narrow(band + 1);
    double* bands = pieces.take((band + 1) * n);
    double* tau = pieces.take(n);
    const lapack_int work_size = narrow(reduction_work(n));
    double* work = pieces.take(work_size);
    lapack_int info = 0;
    dsytrd_sy2sb_("L", &order, &width, a, &order, bands, &ld_band, tau, work, &work_size, &info, 1);
    check_lapack(info, "dsytrd_sy2sb", n);
    check_lapack(
        LAPACKE_dsbtrd_work(col_major, 'N', 'L', order, width, bands, ld_band, diagonal, beside, nullptr, 1, work),
        "dsbtrd", n);
}

/// Ascending, from the lower triangle of `a`, n x n without gaps, which is destroyed.
void eigenvalues_of(double* a, std::int64_t n, double* values, Pieces pieces) {
    double* beside = pieces.take(n);
    if (n < two_stages_pay) {
        double* tau = pieces.take(n);
        const std::int64_t work_size = reduction_work(n);
        check_lapack(LAPACKE_dsytrd_work(col_major, 'L', narrow(n), a, narrow(n), values, beside, tau,
                                         pieces.take(work_size), narrow(work_size)),
                     "dsytrd", n);
    } else {
        tridiagonal_in_two_stages(a, n, values, beside, pieces);
    }
    check_lapack(LAPACKE_dsterf_work(narrow(n), values, beside), "dsterf", n);
}

}  // namespace

std::int64_t eigenvalue_scratch(std::int64_t n) { return (band + 4) * n + reduction_work(n) + 64; }

double trace_of(const double* gram, std::int64_t n) {
    double trace = 0;
    for (std::int64_t i = 0; i < n; ++i) trace += gram[i + i * n];
    return trace;
}

void check_trace(double trace, const MatrixSize& size) { check_finite(trace, size); }

SingularValues roots_of(std::span<const double> squares, double trace, const MatrixSize& size) {
    SingularValues out;
    const std::int64_t additions = gram_panel + 2 * ((long_side(size) + gram_panel - 1) / gram_panel);
    out.square_error = trace * unit * static_cast<double>(additions) +
                       std::max(squares.back(), 0.0) * eps * static_cast<double>(squares.size());
    out.values.resize(at(short_side(size)));
    auto square = squares.end();
    for (double& value : out.values) value = std::sqrt(std::max(*--square, 0.0));
    return out;
}

SingularValues roots_of_gram(double* gram, std::int64_t n, const MatrixSize& size, Pieces pieces) {
    const double trace = trace_of(gram, n);
    check_trace(trace, size);
    double* squares = pieces.take(n);
    eigenvalues_of(gram, n, squares, pieces);
    return roots_of({squares, at(n)}, trace, size);
}

// --- without a Gram matrix -------------------------------------------------------------------------------------------

namespace {

constexpr std::int64_t qr_block = 32;

double largest_magnitude(const MatrixRef& a, double* panel_of_a) {
    double largest = 0;
    for_each_gram_panel(a.cols, [&](Range part) {
        for (std::int64_t row = 0; row < a.rows; ++row) {
            widen(rows_of(a, {row, row + 1}), part, panel_of_a);
            for (std::int64_t i = 0; i < part.size(); ++i) {
                if (!(std::abs(panel_of_a[i]) <= largest)) largest = std::abs(panel_of_a[i]);
                if (std::isnan(largest)) return;
            }
        }
    });
    return largest;
}

std::int64_t panel_doubles(const MatrixSize& size) {
    return Pieces::size(short_side(size) * std::min(gram_panel, long_side(size)));
}

/// `part` of the long side of a, times `scale`, as the rows of a column-major matrix.
void long_rows(const MatrixRef& a, Range part, double scale, double* rows, double* widened) {
    const std::int64_t width = part.size(), n = std::min(a.rows, a.cols);
    if (a.rows <= a.cols) {
        widen(a, part, rows);
        for (std::int64_t i = 0; i < width * n; ++i) rows[i] *= scale;
        return;
    }
    widen(rows_of(a, part), {0, n}, widened);
    for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t i = 0; i < width; ++i) rows[i + j * width] = scale * widened[j + i * n];
    }
}

/// R of the QR factorisation of the long side's rows, a panel after the other: [R; panel] = Q R.
void triangle_of(const MatrixRef& a, double scale, double* r, Pieces pieces) {
    const std::int64_t n = std::min(a.rows, a.cols), panel_size = panel_doubles({a.rows, a.cols});
    const std::int64_t width = std::min(qr_block, n);
    double* rows = pieces.take(panel_size);
    double* widened = pieces.take(panel_size);
    double* reflectors = pieces.take(width * n);
    double* work = pieces.take(width * n);
    std::fill_n(r, n * n, 0.0);
    for_each_gram_panel(std::max(a.rows, a.cols), [&](Range part) {
        long_rows(a, part, scale, rows, widened);
        check_lapack(LAPACKE_dtpqrt_work(col_major, narrow(part.size()), narrow(n), 0, narrow(width), r, narrow(n),
                                         rows, narrow(part.size()), reflectors, narrow(width), work),
                     "dtpqrt", n);
    });
}

}  // namespace

std::int64_t direct_scratch(const MatrixSize& size) {
    const std::int64_t n = short_side(size), panel_size = panel_doubles(size);
    return std::max(2 * panel_size + 2 * qr_block * n, 5 * n + 2 * block * n) + panel + 128;
}

std::optional<int> scaled_triangle_of(const MatrixRef& a, double* r, Pieces pieces) {
    const double largest = largest_magnitude(a, pieces.next);
    check_finite(largest, {a.rows, a.cols});
    if (largest == 0) return std::nullopt;
    int exponent = 0;
    std::frexp(largest, &exponent);
    triangle_of(a, std::ldexp(1.0, -exponent), r, pieces);
    return exponent;
}

SingularValues singular_values_of(const MatrixRef& a, double* r, Pieces pieces) {
    SingularValues out;
    const std::int64_t n = std::min(a.rows, a.cols);
    out.values.resize(at(n));
    const auto exponent = scaled_triangle_of(a, r, pieces);
    if (!exponent) return out;
    double* above = pieces.take(n);
    double* tau_q = pieces.take(n);
    double* tau_p = pieces.take(n);
    const std::int64_t work_size = 2 * block * n;
    double* work = pieces.take(work_size);
    check_lapack(LAPACKE_dgebrd_work(col_major, narrow(n), narrow(n), r, narrow(n), out.values.data(), above, tau_q,
                                     tau_p, work, narrow(work_size)),
                 "dgebrd", n);
    check_lapack(LAPACKE_dbdsqr_work(col_major, 'U', narrow(n), 0, 0, 0, out.values.data(), above, nullptr, 1, nullptr,
                                     1, nullptr, 1, work),
                 "dbdsqr", n);
    for (double& value : out.values) value = std::ldexp(value, *exponent);
    out.error = static_cast<double>(n) * eps * out.values[0];
    return out;
}

}  // namespace geom::cpu
