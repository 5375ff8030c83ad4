#include "kernels/matrices.hpp"

#include "kernels/check_arguments.hpp"

namespace geom {

namespace {

void check_stored(const MatrixRef& matrix, const char* verb) {
    require(matrix.data != nullptr, verb, "a stored matrix without memory");
    require(matrix.rows > 0 && matrix.cols > 0, verb, "a matrix without rows or columns");
    const bool widened = matrix.dtype == DType::bf16 || matrix.dtype == DType::f16 || matrix.dtype == DType::f32 ||
                         matrix.dtype == DType::f64;
    require(widened, verb, "no fp64 linear algebra with elements of this type");
    require(matrix.exponent == 0, verb, "a whole matrix is not scaled");
}

void check_leading(std::span<const MatrixRef> matrices, std::int64_t k, const char* verb) {
    for (const MatrixRef& matrix : matrices) {
        check_stored(matrix, verb);
        require(k >= 1 && k <= matrix.rows && k <= matrix.cols, verb, "more vectors than singular values, or none");
    }
}

}  // namespace

std::vector<SingularValues> Matrices::gram_singular_values(std::span<const MatrixRef> matrices) {
    for (const MatrixRef& matrix : matrices) check_stored(matrix, "gram_singular_values");
    return do_gram_singular_values(matrices);
}

std::vector<SingularValues> Matrices::direct_singular_values(std::span<const MatrixRef> matrices) {
    for (const MatrixRef& matrix : matrices) check_stored(matrix, "direct_singular_values");
    return do_direct_singular_values(matrices);
}

std::int64_t TiedRows::width() const noexcept {
    std::int64_t width = 0;
    for (const Pair& pair : pairs) width += pair.a.width();
    return width;
}

namespace {

void check_turned(const TurnedRows& x, const TurnedRows& model, std::int64_t rows) {
    constexpr const char* verb = "turned_residuals";
    check_stored(x.whole.stored, verb);
    require(x.rows() == rows && rows > 0, verb, "tied matrices with different numbers of rows");
    require(x.width() == model.width(), verb, "a pair of different widths");
    const std::int64_t end = x.columns ? x.whole.stored.cols : x.whole.stored.rows;
    require(x.part.begin >= 0 && x.part.end <= end, verb, "rows that the matrix does not have");
}

}  // namespace

std::vector<TurnedResiduals> Matrices::turned_residuals(std::span<const TiedRows> sets, Turn turn) {
    for (const TiedRows& set : sets) {
        require(!set.pairs.empty(), "turned_residuals", "a set without matrices");
        for (const TiedRows::Pair& pair : set.pairs) {
            check_turned(pair.a, pair.a, set.rows());
            check_turned(pair.b, pair.a, set.rows());
        }
    }
    return do_turned_residuals(sets, turn);
}

std::vector<LeadingVectors> Matrices::gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) {
    check_leading(matrices, k, "gram_leading_vectors");
    return do_gram_leading_vectors(matrices, k);
}

std::vector<LeadingVectors> Matrices::direct_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) {
    check_leading(matrices, k, "direct_leading_vectors");
    return do_direct_leading_vectors(matrices, k);
}

void Matrices::add_gram(const MatrixRef& strip, bool first, double* gram) {
    check_stored(strip, "add_gram");
    require(gram != nullptr, "add_gram", "a Gram matrix without memory");
    do_add_gram(strip, first, gram);
}

SingularValues Matrices::singular_values_of_gram(double* gram, const MatrixSize& size) {
    require(gram != nullptr, "singular_values_of_gram", "a Gram matrix without memory");
    require(size.rows > 0 && size.cols > 0, "singular_values_of_gram", "a matrix without rows or columns");
    return do_singular_values_of_gram(gram, size);
}

}  // namespace geom
