#include "kernels/matrices.hpp"

#include "kernels/check_arguments.hpp"

namespace geom {

namespace {

void check_stored(const MatrixRef& matrix, const char* verb) {
    require(matrix.data != nullptr, verb, "a stored matrix without memory");
    require(matrix.rows > 0 && matrix.cols > 0, verb, "a matrix without rows or columns");
    const bool widened = matrix.dtype == DType::bf16 || matrix.dtype == DType::f16 || matrix.dtype == DType::f32 ||
                         matrix.dtype == DType::f64;
    require(widened, verb, "no singular values of elements of this type");
    require(matrix.exponent == 0, verb, "a whole matrix is not scaled");
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
