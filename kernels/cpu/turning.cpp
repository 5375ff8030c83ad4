#include "kernels/cpu/turning.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "kernels/cpu/polar.hpp"

namespace geom::cpu {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Cholesky factors of Gram matrices lose kappa^2 eps: below this ratio of pivots QR is taken.
constexpr double least_pivot_ratio = 1e-5;
constexpr std::int64_t qr_block = 32;

std::int64_t square_doubles(std::int64_t n) { return Pieces::size(n * n); }

std::int64_t qr_doubles(std::int64_t width) {
    return Pieces::size(inner_panel * width) + Pieces::size(inner_panel * product_tile) +
           2 * Pieces::size(qr_block * width);
}

/// Some rows or columns of a pair's matrices, in f64.
class Turning {
public:
    Turning(const Team& team, GramPath path, const TiedRows& set, double* shared)
        : team_(team), path_(path), set_(set), n_(set.rows()), shared_{shared} {}

    TurnedResiduals compute(Turn turn) {
        TurnedResiduals out;
        out.residuals.assign(set_.pairs.size(), nan);
        if (!measure_norms()) return out;
        if (turn == Turn::none) {
            for (const std::size_t p : measured_) out.residuals[p] = std::sqrt(squared_difference(p));
        } else if (n_ <= set_.width()) {
            by_product(turn, out);
        } else if (turn == Turn::nearest) {
            by_factors(out);
        } else {
            out.unique = false;
        }
        return out;
    }

private:
    // --- norms and differences ---------------------------------------------------------------------------------------

    const TiedRows::Pair& pair(std::size_t p) const { return set_.pairs[p]; }
    Operand a(std::size_t p, bool transposed = false) const { return {pair(p).a, a_factor_[p], transposed}; }
    Operand b(std::size_t p, bool transposed = false) const { return {pair(p).b, b_factor_[p], transposed}; }

    /// Factors to unit norm; false where no pair has both.
    bool measure_norms() {
        for (std::size_t p = 0; p < set_.pairs.size(); ++p) {
            const double a = norm_of(pair(p).a), b = norm_of(pair(p).b);
            if (!std::isfinite(a) || !std::isfinite(b)) {
                throw Error(ExitCode::numerics,
                            "a matrix holds NaN, infinity, or numbers whose squares are beyond fp64");
            }
            a_factor_.push_back(1 / a);
            b_factor_.push_back(1 / b);
            if (a > 0 && b > 0) measured_.push_back(p);
        }
        return !measured_.empty();
    }

    /// f(panel) for panels of some rows, over all columns.
    template <class F>
    static void for_each_panel_of(std::int64_t width, F f) {
        for (std::int64_t begin = 0; begin < width; begin += inner_panel)
            f(Range{begin, std::min(begin + inner_panel, width)});
    }

    double norm_of(const TurnedRows& x) const {
        const Operand operand(x, 1.0);
        return std::sqrt(team_.sum(tiles_of(n_, strip_tile), [&](std::int64_t i, Pieces pieces) {
            const Range rows = tile_at(i, n_, strip_tile);
            double* widened = pieces.take(rows.size() * inner_panel);
            double sum = 0;
            for_each_panel_of(x.width(), [&](Range cols) {
                operand.panel(rows, cols, widened);
                for (std::int64_t e = 0; e < rows.size() * cols.size(); ++e) sum += widened[e] * widened[e];
            });
            return sum;
        }));
    }

    double squared_difference(std::size_t p) const {
        const Operand left = a(p), right = b(p);
        return team_.sum(tiles_of(n_, strip_tile), [&](std::int64_t i, Pieces pieces) {
            const Range rows = tile_at(i, n_, strip_tile);
            double* of_a = pieces.take(rows.size() * inner_panel);
            double* of_b = pieces.take(rows.size() * inner_panel);
            double sum = 0;
            for_each_panel_of(pair(p).a.width(), [&](Range cols) {
                left.panel(rows, cols, of_a);
                right.panel(rows, cols, of_b);
                for (std::int64_t e = 0; e < rows.size() * cols.size(); ++e)
                    sum += (of_a[e] - of_b[e]) * (of_a[e] - of_b[e]);
            });
            return sum;
        });
    }

    // --- T, n x n ----------------------------------------------------------------------------------------------------

    /// The polar factor of A B^T = sum a_i b_i^T.
    void by_product(Turn turn, TurnedResiduals& out) {
        double* x = shared_.take(n_ * n_);
        double* square = shared_.take(n_ * n_);
        const std::int64_t tiles = tiles_of(n_, product_tile);
        team_.for_each(tiles * tiles, [&](std::int64_t t, Pieces pieces) {
            const Range rows = tile_at(t % tiles, n_, product_tile), cols = tile_at(t / tiles, n_, product_tile);
            double* sum = pieces.take(rows.size() * cols.size());
            for (const std::size_t p : measured_) {
                const Operand left = a(p), right = b(p);
                multiply_tile({left, right, rows, cols, {0, pair(p).a.width()}}, path_, p != measured_[0], sum, pieces);
            }
            for (std::int64_t j = 0; j < cols.size(); ++j)
                std::copy_n(sum + j * rows.size(), rows.size(), x + rows.begin + (cols.begin + j) * n_);
        });
        out.unique = polar_factor(team_, path_, x, n_, square).unique;
        const Operand turn_by = turn == Turn::nearest ? Operand(x, n_, 1) : Operand(x, 1, n_);  // X^T, X
        for (const std::size_t p : measured_) out.residuals[p] = std::sqrt(squared_turned_difference(turn_by, p));
    }

    double squared_turned_difference(const Operand& turn, std::size_t p) const {
        const Operand turned = a(p, true), goal = b(p);
        const std::int64_t width = pair(p).a.width(), down = tiles_of(n_, product_tile);
        return team_.sum(down * tiles_of(width, product_tile), [&](std::int64_t t, Pieces pieces) {
            const Range rows = tile_at(t % down, n_, product_tile), cols = tile_at(t / down, width, product_tile);
            double* out = pieces.take(rows.size() * cols.size());
            multiply_tile({turn, turned, rows, cols, {0, n_}}, path_, false, out, pieces);
            double* widened = pieces.take(rows.size() * cols.size());
            const Panel panel = goal.panel(rows, cols, widened);
            double sum = 0;
            for (std::int64_t j = 0; j < cols.size(); ++j) {
                for (std::int64_t i = 0; i < rows.size(); ++i) {
                    const double off = *out++ - panel.data[i * panel.row_step + j * panel.column_step];
                    sum += off * off;
                }
            }
            return sum;
        });
    }

    // --- what T does to the columns of A, w x w
    // -----------------------------------------------------------------------

    /// Columns of a pair that lie in one tile of w x w.
    struct Block {
        std::size_t pair;
        Range own;              // columns of the pair's matrix
        std::int64_t begin;     // of all
        std::int64_t tile_end;  // of the tile of all columns that they lie in
        Range all() const { return {begin, begin + own.size()}; }
    };

    std::vector<Block> blocks() const {
        std::vector<Block> blocks;
        std::int64_t begin = 0;
        for (const std::size_t p : measured_) {
            const std::int64_t width = pair(p).a.width();
            for (std::int64_t own = 0; own < width;) {
                const std::int64_t tile_end = (begin / product_tile + 1) * product_tile;
                const std::int64_t size = std::min(width - own, tile_end - begin);
                blocks.push_back({p, {own, own + size}, begin, tile_end});
                own += size;
                begin += size;
            }
        }
        return blocks;
    }

    std::int64_t measured_width() const {
        std::int64_t width = 0;
        for (const std::size_t p : measured_) width += pair(p).a.width();
        return width;
    }

    /// T Q_a = Q_b W with W^T the polar factor of R_a R_b^T: ||T a_i - b_i|| = ||W R_a,i - R_b,i||.
    void by_factors(TurnedResiduals& out) {
        const std::int64_t w = measured_width();
        double* l_a = shared_.take(w * w);  // R_a^T
        double* l_b = shared_.take(w * w);
        double* x = shared_.take(w * w);
        const bool by_cholesky = factor(true, l_a, w) && factor(false, l_b, w);
        if (!by_cholesky) {
            factor_by_qr(true, l_a, w);
            factor_by_qr(false, l_b, w);
        }
        const std::int64_t tiles = tiles_of(w, product_tile);
        const Operand left(l_a, w, 1), right(l_b, w, 1);
        team_.for_each(tiles * tiles, [&](std::int64_t t, Pieces pieces) {
            const Range rows = tile_at(t % tiles, w, product_tile), cols = tile_at(t / tiles, w, product_tile);
            double* product = pieces.take(rows.size() * cols.size());
            multiply_tile({left, right, rows, cols, {std::max(rows.begin, cols.begin), w}}, path_, false, product,
                          pieces);
            for (std::int64_t j = 0; j < cols.size(); ++j)
                std::copy_n(product + j * rows.size(), rows.size(), x + rows.begin + (cols.begin + j) * w);
        });
        out.unique = polar_factor(team_, path_, x, w, l_b).unique;
        if (by_cholesky) {  // again: a fourth w x w would be gigabytes, this is a twentieth of the work
            factor(false, l_b, w);
        } else {
            factor_by_qr(false, l_b, w);
        }
        for (const std::size_t p : measured_) out.residuals[p] = std::sqrt(squared_core_difference(x, l_a, l_b, p));
    }

    double squared_core_difference(const double* x, const double* l_a, const double* l_b, std::size_t p) const {
        const std::int64_t w = measured_width(), down = tiles_of(w, product_tile);
        std::vector<Block> own = blocks();
        std::erase_if(own, [p](const Block& block) { return block.pair != p; });
        const Operand turn(x, w, 1), turned(l_a, 1, w);
        return team_.sum(down * std::ssize(own), [&](std::int64_t t, Pieces pieces) {
            const Block& block = own[at(t / down)];
            const Range rows = tile_at(t % down, w, product_tile), cols = block.all();
            double* out = pieces.take(rows.size() * cols.size());
            multiply_tile({turn, turned, rows, cols, {0, std::min(block.tile_end, w)}}, path_, false, out, pieces);
            double sum = 0;
            for (std::int64_t col = cols.begin; col < cols.end; ++col) {
                for (std::int64_t row = rows.begin; row < rows.end; ++row) {
                    const double off = *out++ - (row <= col ? l_b[col + row * w] : 0.0);
                    sum += off * off;
                }
            }
            return sum;
        });
    }

    Operand side(bool of_a, std::size_t p, bool transposed) const { return of_a ? a(p, transposed) : b(p, transposed); }

    /// A^T A = L L^T; false where that loses too much.
    bool factor(bool of_a, double* l, std::int64_t w) {
        const std::vector<Block> columns = blocks();
        const std::int64_t count = std::ssize(columns);
        team_.for_each(count * count, [&](std::int64_t t, Pieces pieces) {
            const Block &left = columns[at(t % count)], &right = columns[at(t / count)];
            if (left.begin < right.begin) return;
            const Operand left_columns = side(of_a, left.pair, true), right_columns = side(of_a, right.pair, true);
            double* out = pieces.take(left.own.size() * right.own.size());
            multiply_tile({left_columns, right_columns, left.own, right.own, {0, n_}}, path_, false, out, pieces);
            for (std::int64_t j = 0; j < right.own.size(); ++j)
                std::copy_n(out + j * left.own.size(), left.own.size(), l + left.begin + (right.begin + j) * w);
        });
        const TiledCholesky report = cholesky_in_tiles(team_, path_, l, w, {});
        return report.complete && report.least > least_pivot_ratio * report.largest;
    }

    /// A = Q L^T, a panel of rows after the other: [R; panel] = Q' R'. On one thread.
    void factor_by_qr(bool of_a, double* l, std::int64_t w) {
        const std::vector<Block> columns = blocks();
        std::fill_n(l, w * w, 0.0);
        team_.for_each(1, [&](std::int64_t, Pieces pieces) {
            const lapack_int order = narrow(w), width = narrow(std::min(qr_block, w));
            double* rows = pieces.take(inner_panel * w);
            double* widened = pieces.take(inner_panel * product_tile);
            double* reflectors = pieces.take(qr_block * w);
            double* work = pieces.take(qr_block * w);
            for (std::int64_t begin = 0; begin < n_; begin += inner_panel) {
                const Range part{begin, std::min(begin + inner_panel, n_)};
                for (const Block& block : columns) {
                    const Panel panel = side(of_a, block.pair, false).panel(part, block.own, widened);
                    for (std::int64_t j = 0; j < panel.width; ++j) {
                        for (std::int64_t i = 0; i < panel.rows; ++i)
                            rows[i + (block.begin + j) * part.size()] =
                                panel.data[i * panel.row_step + j * panel.column_step];
                    }
                }
                check_lapack(LAPACKE_dtpqrt_work(col_major, narrow(part.size()), order, 0, width, l, order, rows,
                                                 narrow(part.size()), reflectors, width, work),
                             "dtpqrt", w);
            }
            for (std::int64_t col = 0; col < w; ++col) {
                for (std::int64_t row = col + 1; row < w; ++row)
                    l[row + col * w] = std::exchange(l[col + row * w], 0.0);  // R above the diagonal, L below it
            }
        });
    }

    const Team& team_;
    GramPath path_;
    const TiedRows& set_;
    std::int64_t n_;
    Pieces shared_;
    std::vector<double> a_factor_, b_factor_;
    std::vector<std::size_t> measured_;  // pairs without a zero matrix
};

}  // namespace

TurningDoubles turning_doubles(std::int64_t rows, std::int64_t width, Turn turn) {
    const std::int64_t strip = std::min(rows, strip_tile), panels = 2 * Pieces::size(strip * inner_panel);
    if (turn == Turn::none) return {0, panels};
    const std::int64_t tile = std::min(product_tile, rows);
    const std::int64_t products = 2 * Pieces::size(tile * product_tile) + product_scratch(tile, product_tile);
    if (rows <= width) return {2 * square_doubles(rows), std::max({panels, products, polar_scratch(rows)})};
    if (turn == Turn::backward) return {0, panels};
    return {3 * square_doubles(width), std::max({panels, products, polar_scratch(width), qr_doubles(width)})};
}

TurnedResiduals turned_residuals_of(const Team& team, GramPath path, const TiedRows& set, Turn turn, double* shared) {
    return Turning(team, path, set, shared).compute(turn);
}

}  // namespace geom::cpu
