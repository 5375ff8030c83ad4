// Singular values of whole matrices against LAPACK's SVD: friendly matrices, and hostile ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/matrices.hpp"
#include "measures/spectral_figures.hpp"
#include "measures/spectrum.hpp"
#include "support/error_of.hpp"
#include "support/small_matrix.hpp"
#include "support/whole_matrices.hpp"

namespace geom {
namespace {

using test::at;
using test::expect_within;
using test::Hostile;
using test::hostile_matrices;
using test::lapack_values;
using test::Matrix;
using test::random;
using test::Stored;
using test::with_values;

class MatricesVerbs : public ::testing::Test {
protected:
    std::unique_ptr<Backend> backend_ = make_cpu_backend(2, processor_isa());
    Matrices& matrices_ = backend_->matrices();

    SingularValues gram(const Matrix& a) {
        const Stored stored(a);
        const MatrixRef ref = stored.ref();
        return matrices_.gram_singular_values({&ref, 1})[0];
    }
    SingularValues direct(const Matrix& a) {
        const Stored stored(a);
        const MatrixRef ref = stored.ref();
        return matrices_.direct_singular_values({&ref, 1})[0];
    }
};

TEST_F(MatricesVerbs, both_ways_agree_with_an_svd_within_what_they_promise) {
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {1, 300}, {300, 1}, {7, 7}, {40, 300}, {300, 40}, {257, 256}, {64, 513}}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols);
        const Matrix a = random(rows, cols, 3);
        const auto expected = lapack_values(a);
        expect_within(gram(a), expected);
        expect_within(direct(a), expected);
        EXPECT_NEAR(gram(a).values[0], expected[0], 1e-13 * expected[0]);
        for (std::size_t i = 0; i < expected.size(); ++i)
            EXPECT_NEAR(direct(a).values[i], expected[i], 1e-13 * expected[0]);
    }
}

/// Right singular vectors of the k largest values by LAPACK, as rows.
Matrix lapack_right_vectors(Matrix a, std::int64_t k) {
    const std::int64_t n = std::min(a.rows, a.cols);
    Matrix vt(n, a.cols), rows(k, a.cols);
    std::vector<double> values(at(n)), unused(at(n));
    const auto m = static_cast<lapack_int>(a.rows), cols = static_cast<lapack_int>(a.cols);
    EXPECT_EQ(LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'N', 'S', m, cols, a.data.data(), m, values.data(), nullptr, 1,
                             vt.data.data(), static_cast<lapack_int>(n), unused.data()),
              0);
    for (std::int64_t j = 0; j < a.cols; ++j) {
        for (std::int64_t i = 0; i < k; ++i) rows(i, j) = vt(i, j);
    }
    return rows;
}

/// Sines between rows found and expected are within the tolerance, and rows are of unit length.
void expect_directions(const LeadingVectors& found, const Matrix& expected, double tolerance) {
    ASSERT_EQ(found.right.size(), expected.data.size());
    for (std::int64_t i = 0; i < expected.rows; ++i) {
        double cosine = 0, square = 0, apart = 0;
        for (std::int64_t j = 0; j < expected.cols; ++j)
            cosine += found.right[at(i * expected.cols + j)] * expected(i, j);
        for (std::int64_t j = 0; j < expected.cols; ++j) {
            const double x = found.right[at(i * expected.cols + j)], y = std::copysign(1.0, cosine) * expected(i, j);
            square += x * x;
            apart += (x - y) * (x - y);
        }
        EXPECT_NEAR(square, 1.0, 1e-13);
        EXPECT_LE(std::sqrt(apart), tolerance) << "row " << i;
    }
}

TEST_F(MatricesVerbs, leading_vectors_agree_with_an_svd_both_ways) {
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {1, 300}, {300, 1}, {7, 7}, {40, 300}, {300, 40}, {64, 513}}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols);
        const Matrix a = random(rows, cols, 3);
        const std::int64_t k = std::min<std::int64_t>({4, rows, cols});
        const Stored stored(a);
        const MatrixRef ref = stored.ref();
        const Matrix expected = lapack_right_vectors(a, k);
        const LeadingVectors by_gram = matrices_.gram_leading_vectors({&ref, 1}, k)[0],
                             directly = matrices_.direct_leading_vectors({&ref, 1}, k)[0];
        expect_directions(by_gram, expected, 1e-12);
        expect_directions(directly, expected, 1e-12);
        expect_within(by_gram.spectrum, lapack_values(a));
        expect_within(directly.spectrum, lapack_values(a));
    }
}

TEST_F(MatricesVerbs, directly_small_values_have_their_vectors_too) {
    std::vector<double> values;
    for (int i = 0; i < 30; ++i) values.push_back(std::pow(10.0, -i / 3.0));
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{{90, 40}, {40, 90}}) {
        const Matrix a = with_values(values, rows, cols, 21);
        const Stored stored(a);
        const MatrixRef ref = stored.ref();
        expect_directions(matrices_.direct_leading_vectors({&ref, 1}, 15)[0], lapack_right_vectors(a, 15), 1e-10);
    }
}

TEST_F(MatricesVerbs, a_value_of_zero_has_no_vector) {
    const Matrix zero(20, 30);
    const Stored stored(zero);
    const MatrixRef ref = stored.ref();
    for (const LeadingVectors& found :
         {matrices_.gram_leading_vectors({&ref, 1}, 3)[0], matrices_.direct_leading_vectors({&ref, 1}, 3)[0]}) {
        EXPECT_EQ(found.right, std::vector<double>(90));
        EXPECT_EQ(found.spectrum.values, std::vector<double>(20));
    }
}

TEST_F(MatricesVerbs, a_matrix_that_is_reduced_in_two_stages_agrees_with_an_svd) {
    const Matrix a = random(1600, 1700, 5);
    const auto expected = lapack_values(a);
    const SingularValues found = gram(a);
    expect_within(found, expected);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found.values[i], expected[i], 1e-12 * expected[0]);
}

TEST_F(MatricesVerbs, hostile_spectra_are_within_their_bounds_and_the_effective_rank_is_right_or_in_doubt) {
    for (const Hostile& hostile : hostile_matrices()) {
        SCOPED_TRACE(hostile.name);
        const auto expected = lapack_values(hostile.matrix);
        const double rank = expected[0] > 0 ? ranks_of(expected).eff_rank : 0;
        for (const SingularValues& found : {gram(hostile.matrix), direct(hostile.matrix)}) {
            expect_within(found, expected);
            if (expected[0] == 0) continue;
            EXPECT_LE(std::abs(ranks_of(found.values).eff_rank - rank), rank * (doubt_of(found).eff_rank + 1e-12));
        }
        const SingularValues best = direct(hostile.matrix);
        EXPECT_LT(doubt_of(best).eff_rank, 1e-8);
        if (expected[0] > 0) {
            EXPECT_NEAR(ranks_of(best.values).eff_rank, rank, 1e-9 * rank);
        }
    }
}

TEST_F(MatricesVerbs, numbers_whose_squares_leave_the_range_of_doubles_are_done_directly) {
    for (const double scale : {0x1p600, 0x1p-600, 0x1p-1000}) {
        Matrix a = random(30, 50, 11);
        const auto expected = lapack_values(a);
        for (double& x : a.data) x *= scale;
        const SingularValues found = gram(a);
        EXPECT_EQ(found.square_error, 0);
        for (std::size_t i = 0; i < expected.size(); ++i)
            EXPECT_NEAR(found.values[i] / scale, expected[i], 1e-13 * expected[0]);
    }
}

TEST_F(MatricesVerbs, NaN_and_infinity_are_refused) {
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        Matrix a = random(5, 9, 12);
        a(4, 8) = bad;
        EXPECT_TRUE(test::says(test::error_of([&] { (void)gram(a); }, ExitCode::numerics), "5 x 9", "NaN"));
        EXPECT_TRUE(test::says(test::error_of([&] { (void)direct(a); }, ExitCode::numerics), "5 x 9", "NaN"));
        const Stored stored(a);
        Matrix sums(9, 9);
        matrices_.add_gram(stored.ref(), true, sums.data.data());
        const auto values = [&] { (void)matrices_.singular_values_of_gram(sums.data.data(), {5, 9}); };
        EXPECT_TRUE(test::says(test::error_of(values, ExitCode::numerics), "5 x 9", "NaN"));
    }
}

TEST_F(MatricesVerbs, a_matrix_has_the_same_bits_whatever_is_beside_it_and_on_any_number_of_threads) {
    std::vector<Stored> stored;
    std::vector<MatrixRef> refs;
    for (const std::int64_t n : {30, 90, 60, 90}) stored.emplace_back(random(n, 120, static_cast<unsigned>(n)));
    for (const Stored& each : stored) refs.push_back(each.ref());
    const auto together = matrices_.gram_singular_values(refs);
    const auto direct_together = matrices_.direct_singular_values(refs);
    EXPECT_EQ(together[1].values, together[3].values);
    for (const int threads : {1, 3}) {
        const auto other = make_cpu_backend(threads, processor_isa());
        for (std::size_t i = 0; i < refs.size(); ++i) {
            EXPECT_EQ(other->matrices().gram_singular_values({&refs[i], 1})[0].values, together[i].values);
            EXPECT_EQ(other->matrices().direct_singular_values({&refs[i], 1})[0].values, direct_together[i].values);
        }
    }
}

SingularValues by_strips(Backend& backend, const Stored& stored, std::int64_t rows) {
    Matrices& matrices = backend.matrices();
    const Buffer memory = matrices.allocate(8 * stored.cols * stored.cols);
    for (std::int64_t begin = 0; begin < stored.rows; begin += rows) {
        matrices.add_gram(stored.strip(begin, std::min(begin + rows, stored.rows)), begin == 0, memory.as<double>());
    }
    return matrices.singular_values_of_gram(memory.as<double>(), {stored.rows, stored.cols});
}

TEST_F(MatricesVerbs, strips_of_rows_add_up_to_the_matrix_to_the_same_bits_on_any_number_of_threads) {
    const auto other = make_cpu_backend(3, processor_isa());
    for (const std::int64_t cols : {40, 700}) {  // one tile, and three
        const Matrix a = random(1000, cols, 13);
        const Stored stored(a);
        const SingularValues found = by_strips(*backend_, stored, 300);
        expect_within(found, lapack_values(a));
        EXPECT_EQ(by_strips(*other, stored, 300).values, found.values);
    }
    const Matrix wide = random(20, 50, 14);  // fewer rows than columns: the rest of the Gram matrix's values are zeros
    expect_within(by_strips(*backend_, Stored(wide), 8), lapack_values(wide));
}

TEST_F(MatricesVerbs, the_library_and_tiles_of_avx_512_add_up_the_same_sums) {
    cpu::CpuMatrices library(backend_->workers(), Isa::portable);
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 300}, {23, 25}, {24, 600}, {600, 49}, {520, 530}, {1000, 497}}) {
        const Matrix a = random(rows, cols, 17);
        const Stored stored(a);
        const MatrixRef ref = stored.ref();
        const auto expected = lapack_values(a);
        expect_within(library.gram_singular_values({&ref, 1})[0], expected);
        expect_within(matrices_.gram_singular_values({&ref, 1})[0], expected);
        for (Matrices* matrices : {static_cast<Matrices*>(&library), &matrices_}) {
            Matrix sums(cols, cols);
            matrices->add_gram(ref, true, sums.data.data());
            for (std::int64_t j = 0; j < cols; j += 7) {
                for (std::int64_t i = j; i < cols; i += 5) {
                    double product = 0;
                    for (std::int64_t k = 0; k < rows; ++k) product += a(k, i) * a(k, j);
                    ASSERT_NEAR(sums(i, j), product, 1e-13 * static_cast<double>(rows + 10)) << i << ", " << j;
                }
            }
        }
    }
}

TEST_F(MatricesVerbs, stored_types_are_widened_exactly) {
    const Matrix a = random(12, 20, 15);
    std::vector<float> single(a.data.size());
    std::vector<std::uint16_t> half(a.data.size());
    Matrix narrowed(12, 20);
    for (std::int64_t i = 0; i < 12; ++i) {
        for (std::int64_t j = 0; j < 20; ++j) {
            std::uint32_t bits = 0;
            single[at(i * 20 + j)] = static_cast<float>(a(i, j));
            std::memcpy(&bits, &single[at(i * 20 + j)], 4);
            bits &= 0xffff0000U;
            half[at(i * 20 + j)] = static_cast<std::uint16_t>(bits >> 16);
            std::memcpy(&single[at(i * 20 + j)], &bits, 4);
            narrowed(i, j) = single[at(i * 20 + j)];
        }
    }
    const MatrixRef refs[] = {{reinterpret_cast<const std::byte*>(half.data()), DType::bf16, 12, 20},
                              {reinterpret_cast<const std::byte*>(single.data()), DType::f32, 12, 20}};
    for (const SingularValues& found : matrices_.gram_singular_values(refs))
        EXPECT_EQ(found.values, gram(narrowed).values);
}

TEST_F(MatricesVerbs, what_does_not_fit_is_refused) {
    const Stored stored(random(3, 4, 16));
    const MatrixRef none{nullptr, DType::f64, 3, 4};
    const MatrixRef flat{stored.ref().data, DType::f64, 0, 4};
    const MatrixRef whole{stored.ref().data, DType::i8, 3, 4};
    double gram[16];
    for (const MatrixRef& wrong : {none, flat, whole}) {
        EXPECT_THROW((void)matrices_.gram_singular_values({&wrong, 1}), Error);
        EXPECT_THROW((void)matrices_.direct_singular_values({&wrong, 1}), Error);
        EXPECT_THROW(matrices_.add_gram(wrong, true, gram), Error);
    }
    EXPECT_THROW(matrices_.add_gram(stored.ref(), true, nullptr), Error);
    EXPECT_THROW((void)matrices_.singular_values_of_gram(nullptr, {3, 4}), Error);
    EXPECT_THROW((void)matrices_.singular_values_of_gram(gram, {0, 4}), Error);
    EXPECT_TRUE(matrices_.gram_singular_values({}).empty());
    const MatrixRef good = stored.ref();
    for (const std::int64_t k : {0, 4}) {
        EXPECT_THROW((void)matrices_.gram_leading_vectors({&good, 1}, k), Error);
        EXPECT_THROW((void)matrices_.direct_leading_vectors({&good, 1}, k), Error);
    }
}

TEST_F(MatricesVerbs, scratch_grows_with_the_threads_that_have_work) {
    const std::vector<MatrixSize> one{{1024, 1024}}, three{{1024, 1024}, {1024, 1024}, {64, 64}};
    const std::int64_t alone = matrices_.scratch(one).backend;
    EXPECT_GE(alone, 8 * 1024 * 1024);
    EXPECT_LE(alone, 16 * 1024 * 1024);
    EXPECT_EQ(matrices_.scratch(three).backend, 2 * alone) << "two threads, two matrices at a time";
    EXPECT_GE(matrices_.strip_scratch({4096, 1024}).backend, 8 * 1024 * 1024);
}

}  // namespace
}  // namespace geom
