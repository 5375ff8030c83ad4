#include "kernels/dense_batch.hpp"

#include <algorithm>
#include <cstdlib>

#include "kernels/check_arguments.hpp"

namespace geom {

namespace {

struct Size {
    std::int64_t rows, cols;
};

// `count` matrices of this size.
void check_batch(const Batch& batch, std::int64_t count, Size size, const char* verb) {
    require(batch.size() == count, verb, "batches of different sizes");
    if (count == 0) return;
    require(batch.rows == size.rows && batch.cols == size.cols && batch.ld >= batch.rows, verb,
            "matrices of another shape than their operands'");
    const bool empty = size.rows * size.cols == 0;
    require(empty || std::find(batch.at.begin(), batch.at.end(), nullptr) == batch.at.end(), verb,
            "a matrix without memory");
}

// Blocks of one shape.
void check_stored(std::span<const MatrixRef> blocks, std::int64_t count, const char* verb) {
    require(std::ssize(blocks) == count, verb, "as many stored blocks as matrices are needed");
    for (const MatrixRef& block : blocks) {
        require(block.data != nullptr, verb, "a stored block without memory");
        require(std::abs(block.exponent) <= 1000, verb, "an exponent that f64 does not have");
        require(block.rows == blocks[0].rows && block.cols == blocks[0].cols, verb,
                "stored blocks of different shapes");
    }
}

// Blocks, and below each another of its shape or nothing at all. Returns the shape of a stack.
Size check_stacks(std::span<const MatrixRef> first, std::span<const MatrixRef> second, std::int64_t count,
                  const char* verb) {
    check_stored(first, count, verb);
    if (count == 0) return {0, 0};
    if (second.empty()) return {first[0].rows, first[0].cols};
    check_stored(second, count, verb);
    require(first[0].rows == second[0].rows && first[0].cols == second[0].cols, verb,
            "stored blocks of different shapes");
    return {2 * first[0].rows, first[0].cols};
}

template <class T>
void check_host(std::span<T> numbers, std::int64_t count, const char* verb) {
    require(std::ssize(numbers) == count, verb, "host memory of another size than the results");
}

}  // namespace

void DenseBatch::stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& out) {
    constexpr const char* verb = "stacked_grams";
    require(first.size() == second.size(), verb, "as many second blocks as first are needed");
    const Size stack = check_stacks(first, second, out.size(), verb);
    check_batch(out, out.size(), {stack.rows, stack.rows}, verb);
    do_stacked_grams(first, second, out);
}

void DenseBatch::cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports) {
    constexpr const char* verb = "cholesky";
    check_batch(gram, gram.size(), {gram.rows, gram.rows}, verb);
    check_batch(lower, gram.size(), {gram.rows, gram.rows}, verb);
    check_host(reports, gram.size(), verb);
    do_cholesky(gram, lower, reports);
}

void DenseBatch::qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& lower,
                          std::span<double> min_sine) {
    constexpr const char* verb = "qr_lower";
    const Size stack = check_stacks(first, second, lower.size(), verb);
    check_batch(lower, lower.size(), {stack.rows, stack.rows}, verb);
    check_host(min_sine, lower.size(), verb);
    do_qr_lower(first, second, lower, min_sine);
}

void DenseBatch::product_singular_values(const Batch& left, const Batch& right, std::span<double> values,
                                         const Batch& u, const Batch& v) {
    constexpr const char* verb = "product_singular_values";
    const std::int64_t n = left.rows, count = left.size();
    check_batch(left, count, {n, n}, verb);
    check_batch(right, count, {n, n}, verb);
    check_batch(u, count, {n, u.cols}, verb);
    check_batch(v, count, {n, u.cols}, verb);
    require(u.cols <= n, verb, "more vectors than values");
    check_host(values, count * n, verb);
    do_product_singular_values(left, right, values, u, v);
}

void DenseBatch::solve_transposed(const Batch& lower, const Batch& x) {
    constexpr const char* verb = "solve_transposed";
    check_batch(lower, x.size(), {x.rows, x.rows}, verb);
    check_batch(x, x.size(), {x.rows, x.cols}, verb);
    do_solve_transposed(lower, x);
}

void DenseBatch::combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
    constexpr const char* verb = "combine_rows";
    check_stored(w, out.size(), verb);
    if (out.size() == 0) return;
    check_batch(z, out.size(), {w[0].rows, out.cols}, verb);
    check_batch(out, out.size(), {w[0].cols, out.cols}, verb);
    do_combine_rows(w, z, out);
}

void DenseBatch::combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out) {
    constexpr const char* verb = "combine_orthonormal";
    check_stored(w, out.size(), verb);
    if (out.size() == 0) return;
    check_batch(z, out.size(), {w[0].rows, out.cols}, verb);
    check_batch(out, out.size(), {w[0].cols, out.cols}, verb);
    do_combine_orthonormal(w, z, out);
}

void DenseBatch::exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry) {
    constexpr const char* verb = "exchange_products";
    require(lower.rows % 2 == 0, verb, "stacks have an even number of rows");
    check_batch(lower, lower.size(), {lower.rows, lower.rows}, verb);
    check_batch(out, lower.size(), {lower.rows, lower.rows}, verb);
    check_host(asymmetry, lower.size(), verb);
    do_exchange_products(lower, out, asymmetry);
}

void DenseBatch::symmetric_eigenvalues(const Batch& matrices, std::span<double> values) {
    constexpr const char* verb = "symmetric_eigenvalues";
    check_batch(matrices, matrices.size(), {matrices.rows, matrices.rows}, verb);
    check_host(values, matrices.size() * matrices.rows, verb);
    do_symmetric_eigenvalues(matrices, values);
}

std::unique_ptr<PendingResult> DenseBatch::general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                               std::span<double> im) {
    constexpr const char* verb = "general_eigenvalues";
    check_batch(matrices, matrices.size(), {matrices.rows, matrices.rows}, verb);
    check_host(re, matrices.size() * matrices.rows, verb);
    check_host(im, matrices.size() * matrices.rows, verb);
    return do_general_eigenvalues(matrices, re, im);
}

void DenseBatch::read(const Batch& matrices, std::span<double> host) {
    constexpr const char* verb = "read";
    check_batch(matrices, matrices.size(), {matrices.rows, matrices.cols}, verb);
    check_host(host, matrices.size() * matrices.rows * matrices.cols, verb);
    do_read(matrices, host);
}

}  // namespace geom
