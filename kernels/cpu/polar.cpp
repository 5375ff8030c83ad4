#include "kernels/cpu/polar.hpp"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace geom::cpu {

namespace {

double* tile_of(double* matrix, std::int64_t n, std::int64_t row, std::int64_t col) { return matrix + row + col * n; }

/// The tiles on and below the diagonal of a matrix of `count` x `count` tiles.
std::vector<std::pair<std::int64_t, std::int64_t>> lower_tiles(std::int64_t count) {
    std::vector<std::pair<std::int64_t, std::int64_t>> tiles;
    for (std::int64_t j = 0; j < count; ++j) {
        for (std::int64_t i = j; i < count; ++i) tiles.emplace_back(i, j);
    }
    return tiles;
}

/// The lower triangle of gram = X^T X, tile by tile; ||X^T X - I||_F.
double gram_of_columns(const Team& team, GramPath path, const double* x, std::int64_t n, double* gram) {
    const auto tiles = lower_tiles(tiles_of(n, product_tile));
    const Operand columns(x, n, 1);
    return std::sqrt(team.sum(std::ssize(tiles), [&](std::int64_t t, Pieces pieces) {
        const auto [i, j] = tiles[at(t)];
        const Range rows = tile_at(i, n, product_tile), cols = tile_at(j, n, product_tile);
        double* out = pieces.take(rows.size() * cols.size());
        multiply_tile({columns, columns, rows, cols, {0, n}}, path, false, out, pieces);
        double sum = 0;
        for (std::int64_t col = cols.begin; col < cols.end; ++col, out += rows.size()) {
            double* to = gram + col * n;
            for (std::int64_t row = std::max(rows.begin, col); row < rows.end; ++row) {
                to[row] = out[row - rows.begin];
                const double off = to[row] - (row == col ? 1.0 : 0.0);
                sum += (row == col ? 1.0 : 2.0) * off * off;
            }
        }
        return sum;
    }));
}

}  // namespace

// --- Cholesky --------------------------------------------------------------------------------------------------------

namespace {

/// One column of tiles after the other: subtract what is known, factor the diagonal tile, solve for those below it.
class TiledFactor {
public:
    TiledFactor(const Team& team, GramPath path, double* g, std::int64_t n, const Shifted& shifted)
        : team_(team), path_(path), g_(g), n_(n), shifted_(shifted), factor_(g, 1, n) {}

    TiledCholesky compute() {
        TiledCholesky report;
        for (std::int64_t j = 0; j < tiles_of(n_, product_tile) && report.complete; ++j) {
            const Range cols = tile_at(j, n_, product_tile);
            const std::int64_t below = tiles_of(n_, product_tile) - j;
            team_.for_each(below, [&](std::int64_t i, Pieces pieces) {
                subtract_known(tile_at(j + i, n_, product_tile), cols, pieces);
            });
            double* diagonal = tile_of(g_, n_, cols.begin, cols.begin);
            const lapack_int order = narrow(cols.size());
            team_.for_each(1, [&](std::int64_t, Pieces) {
                report.complete = LAPACKE_dpotrf_work(col_major, 'L', order, diagonal, narrow(n_)) == 0;
            });
            note_pivots(diagonal, cols, report);
            team_.for_each(report.complete ? below - 1 : 0, [&](std::int64_t i, Pieces) {
                const Range rows = tile_at(j + 1 + i, n_, product_tile);
                cblas_dtrsm(CblasColMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, narrow(rows.size()), order,
                            1.0, diagonal, narrow(n_), tile_of(g_, n_, rows.begin, cols.begin), narrow(n_));
            });
        }
        return report;
    }

private:
    void subtract_known(Range rows, Range cols, Pieces pieces) {
        double* known = pieces.take(rows.size() * cols.size());
        multiply_tile({factor_, factor_, rows, cols, {0, cols.begin}}, path_, false, known, pieces);
        for (std::int64_t col = cols.begin; col < cols.end; ++col, known += rows.size()) {
            double* to = g_ + col * n_;
            for (std::int64_t row = std::max(rows.begin, col); row < rows.end; ++row)
                to[row] = shifted_.scale * to[row] + (row == col ? shifted_.shift : 0.0) - known[row - rows.begin];
        }
    }

    void note_pivots(double* diagonal, Range cols, TiledCholesky& report) const {
        for (std::int64_t i = 0; i < cols.size(); ++i) {
            const double pivot = diagonal[i + i * n_];
            const bool first = cols.begin == 0 && i == 0;
            report.least = first ? pivot : std::min(report.least, pivot);
            report.largest = first ? pivot : std::max(report.largest, pivot);
            std::fill_n(diagonal + i * n_, i, 0.0);
        }
    }

    const Team& team_;
    GramPath path_;
    double* g_;
    std::int64_t n_;
    Shifted shifted_;
    Operand factor_;
};

}  // namespace

TiledCholesky cholesky_in_tiles(const Team& team, GramPath path, double* g, std::int64_t n, const Shifted& shifted) {
    return TiledFactor(team, path, g, n, shifted).compute();
}

// --- QDWH ------------------------------------------------------------------------------------------------------------

namespace {

/// X (L L^T)^-1 of a strip of X's rows, and the step's X in its place.
class StripStep {
public:
    StripStep(GramPath path, double* x, std::int64_t n, const double* lower)
        : path_(path), x_(x), n_(n), lower_(lower), down_(lower, 1, n), across_(lower, n, 1) {}

    /// X <- keep X + more X (L L^T)^-1.
    void operator()(Range rows, double keep, double more, Pieces pieces) const {
        const std::int64_t m = rows.size();
        double* y = pieces.take(m * n_);
        for (std::int64_t col = 0; col < n_; ++col) std::copy_n(tile_of(x_, n_, rows.begin, col), m, y + col * m);
        const std::int64_t tiles = tiles_of(n_, product_tile);
        for (std::int64_t j = 0; j < tiles; ++j) {
            const Range cols = tile_at(j, n_, product_tile);
            solve(y, m, {down_, cols, {0, cols.begin}, CblasTrans}, pieces);
        }
        for (std::int64_t j = tiles - 1; j >= 0; --j) {
            const Range cols = tile_at(j, n_, product_tile);
            solve(y, m, {across_, cols, {cols.end, n_}, CblasNoTrans}, pieces);
        }
        for (std::int64_t col = 0; col < n_; ++col) {
            double* to = tile_of(x_, n_, rows.begin, col);
            for (std::int64_t i = 0; i < m; ++i) to[i] = keep * to[i] + more * y[col * m + i];
        }
    }

private:
    struct Columns {
        const Operand& factor;
        Range cols, known;
        CBLAS_TRANSPOSE transposed;
    };

    /// Columns of Y from those that are known.
    void solve(double* y, std::int64_t m, const Columns& columns, Pieces pieces) const {
        const std::int64_t width = columns.cols.size();
        double* to = y + columns.cols.begin * m;
        if (!columns.known.empty()) {
            double* known = pieces.take(m * width);
            const Operand strip(y, 1, m);
            multiply_tile({strip, columns.factor, {0, m}, columns.cols, columns.known}, path_, false, known, pieces);
            for (std::int64_t i = 0; i < m * width; ++i) to[i] -= known[i];
        }
        cblas_dtrsm(CblasColMajor, CblasRight, CblasLower, columns.transposed, CblasNonUnit, narrow(m), narrow(width),
                    1.0, lower_ + columns.cols.begin * (n_ + 1), narrow(n_), to, narrow(m));
    }

    GramPath path_;
    double* x_;
    std::int64_t n_;
    const double* lower_;
    Operand down_, across_;
};

/// A number in [-1, 1) without structure, of element i.
double unstructured(std::uint64_t i) {
    i = (i + 1) * 0x9e3779b97f4a7c15U;  // splitmix64
    i = (i ^ (i >> 30U)) * 0xbf58476d1ce4e5b9U;
    i = (i ^ (i >> 27U)) * 0x94d049bb133111ebU;
    return static_cast<double>(static_cast<std::int64_t>(i ^ (i >> 31U))) * 0x1p-63;
}

/// ||X||_2 from below, by a few steps of the power method.
double spectral_norm(const Team& team, const double* x, std::int64_t n) {
    constexpr int steps = 8;
    const std::int64_t strips = tiles_of(n, strip_tile);
    std::vector<double> v(at(n)), w(at(n));
    for (std::int64_t i = 0; i < n; ++i) v[at(i)] = unstructured(static_cast<std::uint64_t>(i));
    cblas_dscal(narrow(n), 1 / cblas_dnrm2(narrow(n), v.data(), 1), v.data(), 1);
    double norm = 0;
    for (int step = 0; step < steps; ++step) {
        team.for_each(strips, [&](std::int64_t i, Pieces) {
            const Range rows = tile_at(i, n, strip_tile);
            cblas_dgemv(CblasColMajor, CblasNoTrans, narrow(rows.size()), narrow(n), 1.0, x + rows.begin, narrow(n),
                        v.data(), 1, 0.0, w.data() + rows.begin, 1);
        });
        team.for_each(strips, [&](std::int64_t i, Pieces) {
            const Range cols = tile_at(i, n, strip_tile);
            cblas_dgemv(CblasColMajor, CblasTrans, narrow(n), narrow(cols.size()), 1.0, x + cols.begin * n, narrow(n),
                        w.data(), 1, 0.0, v.data() + cols.begin, 1);
        });
        const double along = cblas_dnrm2(narrow(n), v.data(), 1);
        norm = std::sqrt(along);
        if (!(along > 0)) break;
        cblas_dscal(narrow(n), 1 / along, v.data(), 1);
    }
    return norm;
}

/// Times 1 / bound, plus numbers below its rounding: what has no direction gets one that does not depend on chance.
void normalise(const Team& team, double* x, std::int64_t n, double bound) {
    const double noise = 1e-14 / std::sqrt(static_cast<double>(n));
    team.for_each(n, [&](std::int64_t col, Pieces) {
        for (std::int64_t i = col * n; i < (col + 1) * n; ++i)
            x[i] = x[i] / bound + noise * unstructured(static_cast<std::uint64_t>(i));
    });
}

/// A step's coefficients for singular values in [least, 1], and what the least becomes.
struct Step {
    double a, b, c, least;

    explicit Step(double l) {
        const double square = l * l, d = std::cbrt(4 * (1 - square) / (square * square)), root = std::sqrt(1 + d);
        a = root + 0.5 * std::sqrt(8 - 4 * d + 8 * (2 - square) / (square * root));
        b = (a - 1) * (a - 1) / 4;
        c = a + b - 1;
        least = std::min(1.0, l * (a + b * square) / (1 + c * square));
    }
};

}  // namespace

std::int64_t polar_scratch(std::int64_t n) {
    const std::int64_t tile = std::min(product_tile, n), strip = std::min(strip_tile, n);
    return std::max(Pieces::size(tile * tile) + product_scratch(tile, tile),
                    Pieces::size(strip * n) + Pieces::size(strip * tile) + product_scratch(strip, tile));
}

PolarReport polar_factor(const Team& team, GramPath path, double* x, std::int64_t n, double* square) {
    constexpr double first_bound = 1e-8, next_bound = 1e-4, orthogonal = 1e-8;
    constexpr std::int64_t most_steps = 60;
    constexpr int digits_exhausted = 2;  // 1e-8 and 1e-4: what is left is below 1e-12
    PolarReport report;
    const double norm = spectral_norm(team, x, n);
    normalise(team, x, n, norm > 0 ? 1.1 * norm : 1.0);
    double least = first_bound;
    int repeated = 0;
    for (;; ++report.steps) {
        report.deviation = gram_of_columns(team, path, x, n, square);
        if (report.deviation <= orthogonal) break;
        if (!std::isfinite(report.deviation) || report.steps == most_steps) {
            throw Error(ExitCode::numerics,
                        fmt::format("the polar factor of a matrix of order {} does not converge: are "
                                    "there NaN or huge weights?",
                                    n));
        }
        if (1 - least < 1e-3 && report.deviation > 0.1) {  // there are smaller ones than was assumed
            least = next_bound;
            ++repeated;
        }
        const Step step(least);
        const TiledCholesky factor = cholesky_in_tiles(team, path, square, n, {1, step.c});
        if (!factor.complete) throw Error(ExitCode::internal, "I + c X^T X is not positive definite");
        const StripStep update(path, x, n, square);
        team.for_each(tiles_of(n, strip_tile), [&](std::int64_t i, Pieces pieces) {
            update(tile_at(i, n, strip_tile), step.b / step.c, step.a - step.b / step.c, pieces);
        });
        least = step.least;
    }
    report.unique = repeated < digits_exhausted;
    return report;
}

}  // namespace geom::cpu
