#include "kernels/cpu/product_tiles.hpp"

#include <cblas.h>

#include <algorithm>

#include "kernels/cpu/stored_rows.hpp"

namespace geom::cpu {

namespace {

/// Rows `rows` and columns `cols` of a folded matrix, row-major without gaps, times `factor`.
void widen_folded(const FoldedMatrix& x, Range rows, Range cols, double factor, double* to) {
    const MatrixRef& stored = x.stored;
    widen({stored.data + rows.begin * stored.cols * size_of(stored.dtype), stored.dtype, rows.size(), stored.cols},
          cols, to);
    for (std::int64_t i = 0; i < rows.size(); ++i, to += cols.size()) {
        if (x.fold != nullptr) {
            for (std::int64_t j = 0; j < cols.size(); ++j) to[j] *= x.fold[cols.begin + j];
        }
        if (factor != 1) {
            for (std::int64_t j = 0; j < cols.size(); ++j) to[j] *= factor;
        }
    }
}

}  // namespace

Panel Operand::panel(Range rows, Range inner, double* buffer) const {
    const std::int64_t m = rows.size(), k = inner.size();
    if (data_ != nullptr)
        return {data_ + rows.begin * row_step_ + inner.begin * column_step_, m, k, row_step_, column_step_};
    const auto of_part = [this](Range range) { return Range{x_.part.begin + range.begin, x_.part.begin + range.end}; };
    const Range turned = of_part(transposed_ ? inner : rows), across = transposed_ ? rows : inner;
    widen_folded(x_.whole, x_.columns ? across : turned, x_.columns ? turned : across, factor_, buffer);
    const bool inner_is_contiguous = x_.columns == transposed_;
    return inner_is_contiguous ? Panel{buffer, m, k, k, 1} : Panel{buffer, m, k, 1, m};
}

std::int64_t product_scratch(std::int64_t rows, std::int64_t cols) {
    return Pieces::size(rows * inner_panel) + Pieces::size(cols * inner_panel) + packed_doubles(rows, inner_panel) +
           packed_doubles(cols, inner_panel);
}

void multiply_tile(const TileProduct& product, GramPath path, bool add, double* out, Pieces pieces) {
    const std::int64_t m = product.rows.size(), n = product.cols.size();
    double* left_buffer = pieces.take(m * inner_panel);
    double* right_buffer = pieces.take(n * inner_panel);
    double* packed_left = pieces.take(packed_doubles(m, inner_panel));
    double* packed_right = pieces.next;
    if (product.inner.empty() && !add) std::fill_n(out, m * n, 0.0);
    for (std::int64_t begin = product.inner.begin; begin < product.inner.end; begin += inner_panel) {
        const Range inner{begin, std::min(begin + inner_panel, product.inner.end)};
        const Panel left = product.left.panel(product.rows, inner, left_buffer);
        const Panel right = product.right.panel(product.cols, inner, right_buffer);
        const bool overwrite = !add && begin == product.inner.begin;
        if (path == GramPath::tiles) {
            pack_slabs(left, packed_left);
            pack_slabs(right, packed_right);
            add_packed_product({packed_left, packed_right, {0, m}, {0, n}, inner.size(), false}, m, overwrite, out);
        } else {
            const auto step = [](const Panel& some) {
                return narrow(some.row_step == 1 ? std::max(some.column_step, some.rows) : some.row_step);
            };
            cblas_dgemm(CblasColMajor, left.row_step == 1 ? CblasNoTrans : CblasTrans,
                        right.row_step == 1 ? CblasTrans : CblasNoTrans, narrow(m), narrow(n), narrow(inner.size()),
                        1.0, left.data, step(left), right.data, step(right), overwrite ? 0.0 : 1.0, out, narrow(m));
        }
    }
}

}  // namespace geom::cpu
