// The verbs of CudaDenseBatch that are products and triangular solves. Stored rows go through fp64 panels of D: each is
// widened by a kernel and multiplied by a batched product, which adds to what the panels before gave.
//
// Flops and bytes at 32 heads of 128 x 5120, 4 of them keys: stacked_grams 68 products, 11 GFlop, panels written and
// read 0.4 GB (from L2 where it holds them): 0.2 ms at the 50 TFlop/s of fp64 tensor cores. combine_rows for 8
// directions: 0.3 GFlop, 0.4 GB, twice. Errors: |G - exact| <= D eps |X| |X|^T, as any order of summation.
#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "core/range.hpp"
#include "kernels/cuda/dense_batch.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"

namespace geom::cuda {

namespace {

/// C = op(A) B + beta C of a batch.
struct Products {
    cublasOperation_t op = CUBLAS_OP_N;
    std::int64_t rows = 0, cols = 0, depth = 0, count = 0;
    double beta = 0;
};

void multiply(const Device& device, const Products& of, Blocks a, Blocks b, Blocks c) {
    if (of.rows == 0 || of.cols == 0 || of.count == 0) return;
    const double one = 1;
    check_cublas(cublasDgemmBatched(device.cublas(), of.op, CUBLAS_OP_N, narrow(of.rows), narrow(of.cols),
                                    narrow(of.depth), &one, a.at, narrow(a.ld), b.at, narrow(b.ld), &of.beta, c.at,
                                    narrow(c.ld), narrow(of.count)),
                 "cublasDgemmBatched");
}

std::vector<Range> panels_of(std::int64_t hidden) {
    std::vector<Range> panels;
    for (std::int64_t begin = 0; begin < hidden; begin += panel)
        panels.push_back({begin, std::min(begin + panel, hidden)});
    return panels;
}

/// Which heads bring a first block of their own, and which block each head uses.
struct Leaders {
    std::vector<std::int64_t> head;      ///< of each block
    std::vector<std::int64_t> block_of;  ///< of each head

    explicit Leaders(std::span<const MatrixRef> first) {
        for (std::size_t i = 0; i < first.size(); ++i) {
            if (i == 0 || first[i].data != first[i - 1].data) head.push_back(static_cast<std::int64_t>(i));
            block_of.push_back(std::ssize(head) - 1);
        }
    }
};

}  // namespace

void CudaDenseBatch::do_stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second,
                                      const Batch& out) {
    if (out.size() == 0) return;
    device_.use();
    const std::int64_t n = out.rows / 2, hidden = first[0].cols, width = std::min(panel, hidden), stride = n * width;
    const Leaders leaders(first);
    const std::int64_t keys = std::ssize(leaders.head), heads = out.size();

    // Panels of the keys, then of the queries; products: every key's, then every query's, then queries by keys.
    std::vector<MatrixRef> blocks;
    for (const std::int64_t head : leaders.head) blocks.push_back(first[at(head)]);
    blocks.insert(blocks.end(), second.begin(), second.end());
    const auto [panels] = memory_.scratch(grams_pieces(heads, n, hidden));
    const std::vector<double*> panel_of = pointers(panels, keys + heads, stride);
    std::vector<double*> left = panel_of, right = panel_of, grams, copied, copies;
    for (const std::int64_t head : leaders.head) grams.push_back(out.at[at(head)]);
    for (double* const gram : out.at) grams.push_back(gram + n + n * out.ld);
    for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t key = leaders.block_of[at(h)];
        left.push_back(panel_of[at(keys + h)]);
        right.push_back(panel_of[at(key)]);
        grams.push_back(out.at[at(h)] + n);
        if (leaders.head[at(key)] == h) continue;
        copied.push_back(out.at[at(leaders.head[at(key)])]);
        copies.push_back(out.at[at(h)]);
    }
    const auto [stored, a, b, c, from, to] = memory_.upload(stored_rows(blocks), left, right, grams, copied, copies);
    for (const Range columns : panels_of(hidden)) {
        const std::int64_t depth = columns.size();
        widen(stored, {keys + heads, n, hidden, columns, stride}, panels, device_.stream());
        multiply(device_, {CUBLAS_OP_T, n, n, depth, keys + 2 * heads, columns.begin == 0 ? 0.0 : 1.0}, {a, depth},
                 {b, depth}, {c, out.ld});
    }
    copy_blocks(std::ssize(copies), {from, out.ld}, n, n, {to, out.ld}, device_.stream());
}

void CudaDenseBatch::do_solve_transposed(const Batch& lower, const Batch& x) {
    if (x.size() == 0 || x.rows == 0 || x.cols == 0) return;
    device_.use();
    const double one = 1;
    const auto [l, columns] = memory_.upload(lower.at, x.at);
    check_cublas(cublasDtrsmBatched(device_.cublas(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_T,
                                    CUBLAS_DIAG_NON_UNIT, narrow(x.rows), narrow(x.cols), &one, l, narrow(lower.ld),
                                    columns, narrow(x.ld), narrow(x.size())),
                 "cublasDtrsmBatched");
}

void CudaDenseBatch::do_combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
    const std::vector<StoredRows> rows = stored_rows(w);
    if (out.size() == 0 || out.cols == 0) return;
    device_.use();
    const std::int64_t n = w[0].rows, hidden = w[0].cols, stride = n * std::min(panel, hidden);
    const auto [panels] = memory_.scratch(combine_pieces(out.size(), n, hidden));
    std::vector<double*> parts;  // of the results: a panel's rows of all, then the next panel's
    for (const Range columns : panels_of(hidden)) {
        for (double* const matrix : out.at) parts.push_back(matrix + columns.begin);
    }
    const auto [stored, wt, vectors, results] = memory_.upload(rows, pointers(panels, out.size(), stride), z.at, parts);
    for (const Range columns : panels_of(hidden)) {
        widen(stored, {out.size(), n, hidden, columns, stride}, panels, device_.stream());
        multiply(device_, {CUBLAS_OP_N, columns.size(), out.cols, n, out.size()}, {wt, columns.size()}, {vectors, z.ld},
                 {results + columns.begin / panel * out.size(), out.ld});
    }
}

void CudaDenseBatch::do_exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry) {
    if (lower.size() == 0) return;
    device_.use();
    // L = [[A, 0], [C, E]]: B = A^T [C, E] fills the upper n rows of 2n x 2n; the products are B + B^T, B - B^T.
    const std::int64_t order = lower.rows, n = order / 2, count = lower.size();
    const auto [products, squares] = memory_.scratch(exchange_pieces(count, order));
    const auto [a, ce, b, results] =
        memory_.upload(lower.at, lower.block(n, 0, n, order).at, pointers(products, count, n * order), out.at);
    multiply(device_, {CUBLAS_OP_T, n, order, n, count}, {a, lower.ld}, {ce, lower.ld}, {b, n});
    finish_exchange(count, products, n, {results, out.ld}, squares, device_.stream());
    const std::span<const double> sums = memory_.fetch(squares, count * n);
    for (std::int64_t i = 0; i < count; ++i) {
        double sum = 0;
        for (const double square : sums.subspan(at(i * n), at(n))) sum += square;
        asymmetry[at(i)] = std::sqrt(sum);
    }
}

}  // namespace geom::cuda
