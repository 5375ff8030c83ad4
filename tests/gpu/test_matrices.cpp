// Matrices of a rank with a GPU: singular values against LAPACK's SVD, and the memory they take.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/gram_spectra.hpp"
#include "kernels/gpu.hpp"
#include "measures/spectral_figures.hpp"
#include "measures/spectrum.hpp"
#include "support/backend_memory.hpp"
#include "support/error_of.hpp"
#include "support/whole_matrices.hpp"

namespace geom {
namespace {

using test::at;
using test::eps;
using test::Matrix;
using test::random;
using test::Stored;

class GpuMatrices : public ::testing::Test {
protected:
    void SetUp() override {
        if (visible_gpus().gpus.empty()) GTEST_SKIP() << "no GPU: " << visible_gpus().why_none;
        backend_ = make_cuda_backend(0, 3);
    }

    Matrices& matrices() { return backend_->matrices(); }

    /// A matrix in the GPU's memory, from where another lies.
    MatrixRef sent(const MatrixRef& ref) {
        const std::size_t bytes = at(ref.rows * ref.cols * size_of(ref.dtype));
        kept_.push_back(test::to_backend(*backend_, {ref.data, bytes}));
        return {kept_.back().data(), ref.dtype, ref.rows, ref.cols};
    }
    MatrixRef sent(const Matrix& a) { return sent(Stored(a).ref()); }

    SingularValues gram(const Matrix& a) {
        const MatrixRef ref = sent(a);
        return matrices().gram_singular_values({&ref, 1})[0];
    }
    SingularValues direct(const Matrix& a) {
        const MatrixRef ref = sent(a);
        return matrices().direct_singular_values({&ref, 1})[0];
    }
    SingularValues by_strips(const Stored& stored, std::int64_t rows) {
        const Buffer sums = matrices().allocate(8 * stored.cols * stored.cols);
        for (std::int64_t begin = 0; begin < stored.rows; begin += rows) {
            matrices().add_gram(sent(stored.strip(begin, std::min(begin + rows, stored.rows))), begin == 0,
                                sums.as<double>());
        }
        return matrices().singular_values_of_gram(sums.as<double>(), {stored.rows, stored.cols});
    }

    std::unique_ptr<Backend> backend_;
    std::vector<Buffer> kept_;
};

TEST_F(GpuMatrices, both_ways_agree_with_an_svd_within_what_they_promise) {
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {1, 300}, {300, 1}, {7, 7}, {40, 300}, {300, 40}, {257, 256}, {64, 513}}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols);
        const Matrix a = random(rows, cols, 3);
        const auto expected = test::lapack_values(a);
        for (const SingularValues& found : {gram(a), direct(a)}) {
            test::expect_within(found, expected);
            EXPECT_NEAR(found.values[0], expected[0], 1e-13 * expected[0]);
        }
    }
}

TEST_F(GpuMatrices, large_matrices_that_are_in_flight_together_agree_with_an_svd) {
    const std::vector<Matrix> all{random(1040, 1100, 5), random(1100, 1030, 6), random(1030, 1040, 7)};
    std::vector<MatrixRef> refs;
    for (const Matrix& a : all) refs.push_back(sent(a));
    const auto found = matrices().gram_singular_values(refs);
    for (std::size_t i = 0; i < all.size(); ++i) test::expect_within(found[i], test::lapack_values(all[i]));
}

TEST_F(GpuMatrices, the_floor_is_that_of_the_processor) {
    const auto processor = make_cpu_backend(1, usable_isa());
    for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{{50, 700}, {1000, 40}}) {
        const Stored stored(random(rows, cols, 4));
        const MatrixRef here = stored.ref(), there = sent(here);
        const double floor = processor->matrices().gram_singular_values({&here, 1})[0].square_error;
        EXPECT_NEAR(matrices().gram_singular_values({&there, 1})[0].square_error, floor, 1e-9 * floor);
    }
}

TEST_F(GpuMatrices, hostile_spectra_are_within_their_bounds_and_the_effective_rank_is_right_or_in_doubt) {
    for (const test::Hostile& hostile : test::hostile_matrices()) {
        SCOPED_TRACE(hostile.name);
        const auto expected = test::lapack_values(hostile.matrix);
        const double rank = expected[0] > 0 ? ranks_of(expected).eff_rank : 0;
        for (const SingularValues& found : {gram(hostile.matrix), direct(hostile.matrix)}) {
            test::expect_within(found, expected);
            if (expected[0] == 0) continue;
            EXPECT_LE(std::abs(ranks_of(found.values).eff_rank - rank), rank * (doubt_of(found).eff_rank + 1e-12));
        }
    }
}

TEST_F(GpuMatrices, numbers_whose_squares_leave_the_range_of_doubles_are_done_directly) {
    const Matrix a = random(30, 50, 11);
    const auto expected = test::lapack_values(a);
    std::vector<MatrixRef> refs{sent(a)};
    const std::vector<double> scales{0x1p600, 0x1p-600, 0x1p-1000};
    for (const double scale : scales) {
        Matrix scaled = a;
        for (double& x : scaled.data) x *= scale;
        refs.push_back(sent(scaled));
    }
    const auto found = matrices().gram_singular_values(refs);
    EXPECT_EQ(found[0].values, gram(a).values) << "beside others";
    EXPECT_GT(found[0].square_error, 0);
    for (std::size_t s = 0; s < scales.size(); ++s) {
        EXPECT_EQ(found[s + 1].square_error, 0);
        for (std::size_t i = 0; i < expected.size(); ++i)
            EXPECT_NEAR(found[s + 1].values[i] / scales[s], expected[i], 1e-13 * expected[0]);
    }
}

TEST_F(GpuMatrices, matrices_far_from_one_keep_their_digits) {
    for (const std::int64_t n : {30, 1026}) {  // of several a call, and alone
        const Matrix a = random(n, 31, 12);
        const SingularValues found = gram(a);
        for (const double scale : {0x1p290, 0x1p-290}) {
            Matrix scaled = a;
            for (double& x : scaled.data) x *= scale;
            const SingularValues far = gram(scaled);
            EXPECT_GT(far.square_error, 0) << "by its Gram matrix";
            for (std::size_t i = 0; i < found.values.size(); ++i) {
                EXPECT_NEAR(far.values[i] / scale, found.values[i], 1e-13 * found.values[0]);
            }
        }
    }
}

TEST_F(GpuMatrices, NaN_and_infinity_are_refused) {
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        Matrix a = random(5, 9, 12);
        a(4, 8) = bad;
        EXPECT_TRUE(test::says(test::error_of([&] { (void)gram(a); }, ExitCode::numerics), "5 x 9", "NaN"));
        EXPECT_TRUE(test::says(test::error_of([&] { (void)direct(a); }, ExitCode::numerics), "5 x 9", "NaN"));
        const auto summed = [&] { (void)by_strips(Stored(a), 2); };
        EXPECT_TRUE(test::says(test::error_of(summed, ExitCode::numerics), "5 x 9", "NaN"));
    }
}

TEST_F(GpuMatrices, a_matrix_has_the_same_bits_whatever_is_beside_it_and_on_any_number_of_threads) {
    std::vector<MatrixRef> refs;
    for (const std::int64_t n : {30, 90, 60, 90, 1030})
        refs.push_back(sent(random(n, 120 + n, static_cast<unsigned>(n))));
    const MatrixRef many = sent(random(70 * 20, 16, 22));
    for (std::int64_t i = 0; i < 70; ++i)  // more than one call takes
        refs.push_back({many.data + i * 20 * 16 * 8, DType::f64, 20, 16});
    const auto together = matrices().gram_singular_values(refs);
    EXPECT_EQ(together[1].values, together[3].values);
    const auto other = make_cuda_backend(0, 1);
    for (std::size_t i = 0; i < refs.size(); i += i < 5 ? 1 : 13)
        EXPECT_EQ(other->matrices().gram_singular_values({&refs[i], 1})[0].values, together[i].values);
}

TEST_F(GpuMatrices, strips_of_rows_add_up_to_the_matrix) {
    for (const std::int64_t cols : {40, 700}) {
        const Matrix a = random(1000, cols, 13);
        test::expect_within(by_strips(Stored(a), 300), test::lapack_values(a));
    }
    const Matrix wide = random(20, 50, 14);  // fewer rows than columns: the rest of the Gram matrix's values are zeros
    test::expect_within(by_strips(Stored(wide), 8), test::lapack_values(wide));
}

TEST_F(GpuMatrices, stored_types_are_widened_exactly) {
    const Matrix a = random(12, 20, 15);
    std::vector<float> single(a.data.size());
    std::vector<std::uint16_t> half(a.data.size());
    Matrix narrowed(12, 20);
    for (std::int64_t i = 0; i < 12; ++i) {
        for (std::int64_t j = 0; j < 20; ++j) {
            std::uint32_t bits = 0;
            float& number = single[at(i * 20 + j)];
            number = static_cast<float>(a(i, j));
            std::memcpy(&bits, &number, 4);
            bits &= 0xffff0000U;
            half[at(i * 20 + j)] = static_cast<std::uint16_t>(bits >> 16);
            std::memcpy(&number, &bits, 4);
            narrowed(i, j) = number;
        }
    }
    const std::vector<MatrixRef> refs{
        sent(MatrixRef{reinterpret_cast<const std::byte*>(half.data()), DType::bf16, 12, 20}),
        sent(MatrixRef{reinterpret_cast<const std::byte*>(single.data()), DType::f32, 12, 20})};
    for (const SingularValues& found : matrices().gram_singular_values(refs))
        EXPECT_EQ(found.values, gram(narrowed).values);
}

TEST(GramSpectra, keeps_the_memory_that_it_says_and_takes_no_more_for_less) {
    if (visible_gpus().gpus.empty()) GTEST_SKIP() << "no GPU: " << visible_gpus().why_none;
    Workers workers(2);
    cuda::Device device(0, workers);
    cuda::DeviceQueue queue(device);
    cuda::GramSpectra spectra(device, workers);
    const std::vector<MatrixSize> sizes{{200, 300}, {1100, 1030}, {200, 90}};
    std::vector<Buffer> memory;
    std::vector<MatrixRef> refs;
    for (const MatrixSize& size : sizes) {
        const Stored stored(random(size.rows, size.cols, 21));
        memory.push_back(device.allocate(8 * size.rows * size.cols));
        queue.copy(memory.back().data(), stored.ref().data, memory.back().size());
        queue.wait();
        refs.push_back({memory.back().data(), DType::f64, size.rows, size.cols});
    }
    EXPECT_EQ(spectra.held_bytes(), 0);
    EXPECT_TRUE(spectra.of(refs)[1]);
    EXPECT_EQ(spectra.held_bytes(), spectra.bytes(sizes));
    EXPECT_TRUE(spectra.of({refs.data(), 1})[0]);
    EXPECT_EQ(spectra.held_bytes(), spectra.bytes(sizes));
    EXPECT_TRUE(spectra.of({}).empty());
}

TEST(GramSpectra, of_small_matrices_so_many_come_a_call_and_of_large_ones_one) {
    for (const auto& [n, count] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 64}, {128, 64}, {768, 14}, {1024, 8}, {1025, 1}}) {
        EXPECT_EQ(cuda::eigen_call(n).count, count) << n;
    }
}

}  // namespace
}  // namespace geom
