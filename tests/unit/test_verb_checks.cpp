// Public verbs refuse what does not fit before a body sees it; what fits reaches the body.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "core/error.hpp"
#include "kernels/dense_batch.hpp"
#include "kernels/head_products.hpp"
#include "kernels/workers.hpp"

namespace geom {
namespace {

class CountingHeads final : public HeadProducts {
public:
    int calls = 0;

private:
    HeadBlockFormat do_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const override {
        return {head_dim, hidden, dtype == DType::f16 ? DType::f32 : dtype, head_dim * hidden * 8, "counting"};
    }
    void do_pack(std::span<const MatrixRef>, const HeadBlockFormat&, std::span<std::byte* const>,
                 const MatrixRef&) override {
        ++calls;
    }
    void do_tile_dots(const KvGroupBlocks&, const HeadBlockFormat&, std::span<double>) override { ++calls; }
    void do_cross_dots(const KvGroupBlocks&, const KvGroupBlocks&, const HeadBlockFormat&, std::span<double>) override {
        ++calls;
    }
    std::int64_t do_scratch_bytes(const HeadBlockFormat&, std::int64_t, std::int64_t) const override { return 0; }
    std::int64_t do_cross_scratch_bytes(const HeadBlockFormat&, std::int64_t, std::int64_t,
                                        std::int64_t) const override {
        return 0;
    }
};

TEST(HeadProductsChecks, a_format_needs_sizes_and_a_type_that_is_multiplied) {
    const CountingHeads heads;
    EXPECT_EQ(heads.format(DType::bf16, 4, 6).dtype, DType::bf16);
    EXPECT_THROW((void)heads.format(DType::bf16, 0, 6), Error);
    EXPECT_THROW((void)heads.format(DType::bf16, 4, -1), Error);
    EXPECT_THROW((void)heads.format(DType::i8, 4, 6), Error);
}

TEST(HeadProductsChecks, blocks_are_packed_where_shape_type_and_places_fit) {
    CountingHeads heads;
    std::array<std::byte, 256> memory{};
    const HeadBlockFormat format = heads.format(DType::bf16, 2, 3);
    const MatrixRef block{memory.data(), DType::bf16, 2, 3};
    const std::vector<std::byte*> one{memory.data()};
    heads.pack({&block, 1}, format, one);
    EXPECT_EQ(heads.calls, 1);
    const MatrixRef wrong[] = {{memory.data(), DType::bf16, 3, 3},
                               {memory.data(), DType::bf16, 2, 2},
                               {memory.data(), DType::f32, 2, 3},
                               {nullptr, DType::bf16, 2, 3}};
    for (const MatrixRef& other : wrong) EXPECT_THROW(heads.pack({&other, 1}, format, one), Error);
    EXPECT_THROW(heads.pack({&block, 1}, format, {}), Error);
    EXPECT_THROW(heads.pack({&block, 1}, {}, one), Error);
    EXPECT_EQ(heads.calls, 1);
}

TEST(HeadProductsChecks, tile_dots_writes_heads_by_layers_by_layers) {
    CountingHeads heads;
    std::array<std::byte, 256> memory{};
    const HeadBlockFormat format = heads.format(DType::f64, 2, 3);
    const KvGroupBlocks group{3, 2, memory.data(), memory.data()};
    std::vector<double> out(18);
    heads.tile_dots(group, format, out);
    EXPECT_EQ(heads.calls, 1);
    EXPECT_THROW(heads.tile_dots(group, format, std::span(out).first(17)), Error);
    EXPECT_THROW(heads.tile_dots({3, 2, nullptr, memory.data()}, format, out), Error);
    EXPECT_THROW(heads.tile_dots({-3, -2, memory.data(), memory.data()}, format, out), Error);
    heads.tile_dots({0, 0, nullptr, nullptr}, format, {});
    EXPECT_EQ(heads.calls, 1) << "nothing to do";
}

TEST(HeadProductsChecks, cross_dots_takes_groups_of_the_same_layers_and_runs_of_a_group) {
    CountingHeads heads;
    std::array<std::byte, 1024> memory{};
    const HeadBlockFormat format = heads.format(DType::f64, 2, 1);  // blocks of 16 bytes
    const std::byte *k = memory.data(), *q = k + 512, *other = k + 256;
    const KvGroupBlocks left{3, 1, other, q}, right{3, 2, k, q};
    std::vector<double> out(18);
    heads.cross_dots(left, right, format, out);
    EXPECT_EQ(heads.calls, 1);
    EXPECT_EQ(place_in(left, right, format), -1);
    EXPECT_EQ(place_in({3, 1, k, q + 48}, right, format), 1) << "the second head of the group";
    heads.cross_dots({3, 1, k, q + 48}, right, format, out);
    EXPECT_EQ(heads.calls, 2);
    EXPECT_THROW(heads.cross_dots(left, right, format, std::span(out).first(17)), Error);
    EXPECT_THROW(heads.cross_dots({2, 1, other, q}, right, format, out), Error);
    EXPECT_THROW(heads.cross_dots({3, 1, nullptr, q}, right, format, out), Error);
    EXPECT_THROW(heads.cross_dots({3, 1, k, q + 8}, right, format, out), Error) << "half a block further";
    EXPECT_THROW(heads.cross_dots({3, 1, k, q + 96}, right, format, out), Error) << "beyond the group";
    EXPECT_EQ(heads.calls, 2);
}

class CountingDense final : public DenseBatch {
public:
    int calls = 0;
    Buffer allocate(std::int64_t) override { return {}; }
    Workers& workers() override { return workers_; }
    std::int64_t heads_at_once() const override { return 1; }
    std::int64_t scratch_bytes(std::int64_t, std::int64_t, std::int64_t, std::int64_t) const override { return 0; }

private:
    using Stored = std::span<const MatrixRef>;
    void do_stacked_grams(Stored, Stored, const Batch&) override { ++calls; }
    void do_cholesky(const Batch&, const Batch&, std::span<CholeskyReport>) override { ++calls; }
    void do_qr_lower(Stored, Stored, const Batch&, std::span<double>) override { ++calls; }
    void do_product_singular_values(const Batch&, const Batch&, std::span<double>, const Batch&,
                                    const Batch&) override {
        ++calls;
    }
    void do_solve_transposed(const Batch&, const Batch&) override { ++calls; }
    void do_combine_rows(Stored, const Batch&, const Batch&) override { ++calls; }
    void do_combine_orthonormal(Stored, const Batch&, const Batch&) override { ++calls; }
    void do_exchange_products(const Batch&, const Batch&, std::span<double>) override { ++calls; }
    void do_symmetric_eigenvalues(const Batch&, std::span<double>) override { ++calls; }
    std::unique_ptr<PendingResult> do_general_eigenvalues(const Batch&, std::span<double>, std::span<double>) override {
        ++calls;
        return nullptr;
    }
    void do_read(const Batch&, std::span<double>) override { ++calls; }

    Workers workers_{1};
};

// Two matrices of a shape in one memory; blocks of 2 x 5 as stored.
class DenseBatchChecks : public ::testing::Test {
protected:
    Batch two(std::int64_t rows, std::int64_t cols) { return {{memory_.data(), memory_.data()}, rows, cols, rows}; }
    std::vector<MatrixRef> stored(std::int64_t rows) {
        const MatrixRef block{reinterpret_cast<const std::byte*>(memory_.data()), DType::f64, rows, 5};
        return {block, block};
    }
    std::span<double> host(std::int64_t count) { return std::span(memory_).first(static_cast<std::size_t>(count)); }

    void expect_called(int times) { EXPECT_EQ(dense_.calls, times); }

    CountingDense dense_;
    std::vector<double> memory_ = std::vector<double>(200);
    std::vector<CholeskyReport> reports_ = std::vector<CholeskyReport>(2);
};

TEST_F(DenseBatchChecks, what_fits_reaches_every_body) {
    const auto w = stored(2);
    dense_.stacked_grams(w, w, two(4, 4));
    dense_.cholesky(two(3, 3), two(3, 3), reports_);
    dense_.qr_lower(w, {}, two(2, 2), host(2));
    dense_.qr_lower(w, w, two(4, 4), host(2));
    dense_.product_singular_values(two(3, 3), two(3, 3), host(6), two(3, 2), two(3, 2));
    dense_.solve_transposed(two(3, 3), two(3, 1));
    dense_.combine_rows(w, two(2, 3), two(5, 3));
    dense_.combine_orthonormal(w, two(2, 3), two(5, 3));
    dense_.exchange_products(two(4, 4), two(4, 4), host(2));
    dense_.symmetric_eigenvalues(two(3, 3), host(6));
    (void)dense_.general_eigenvalues(two(3, 3), host(6), host(6));
    dense_.read(two(3, 2), host(12));
    expect_called(12);
}

TEST_F(DenseBatchChecks, what_does_not_fit_reaches_none) {
    const auto w = stored(2), taller = stored(3);
    Batch nowhere = two(3, 3), narrow_ld = two(3, 3), one = two(3, 3);
    nowhere.at[1] = nullptr;
    narrow_ld.ld = 2;
    one.at.pop_back();
    EXPECT_THROW(dense_.stacked_grams(w, w, two(3, 3)), Error);
    EXPECT_THROW(dense_.stacked_grams(w, taller, two(4, 4)), Error);
    EXPECT_THROW(dense_.stacked_grams(w, {}, two(4, 4)), Error);
    EXPECT_THROW(dense_.stacked_grams(std::vector{w[0], taller[0]}, w, two(4, 4)), Error);
    for (const Batch& bad : {nowhere, narrow_ld, one, two(3, 2)}) {
        EXPECT_THROW(dense_.cholesky(two(3, 3), bad, reports_), Error);
        EXPECT_THROW(dense_.product_singular_values(two(3, 3), bad, host(6), two(3, 2), two(3, 2)), Error);
        EXPECT_THROW(dense_.solve_transposed(bad, two(3, 1)), Error);
        EXPECT_THROW(dense_.exchange_products(two(4, 4), bad, host(2)), Error);
    }
    EXPECT_THROW(dense_.cholesky(two(3, 3), two(3, 3), std::span(reports_).first(1)), Error);
    EXPECT_THROW(dense_.qr_lower(w, {}, two(4, 4), host(2)), Error);
    EXPECT_THROW(dense_.qr_lower(w, {}, two(2, 2), host(1)), Error);
    EXPECT_THROW(dense_.product_singular_values(two(3, 3), two(3, 3), host(5), two(3, 2), two(3, 2)), Error);
    EXPECT_THROW(dense_.product_singular_values(two(3, 3), two(3, 3), host(6), two(3, 2), two(3, 1)), Error);
    EXPECT_THROW(dense_.product_singular_values(two(3, 3), two(3, 3), host(6), two(3, 4), two(3, 4)), Error);
    EXPECT_THROW(dense_.combine_rows(w, two(3, 3), two(5, 3)), Error);
    EXPECT_THROW(dense_.combine_rows(w, two(2, 3), two(4, 3)), Error);
    EXPECT_THROW(dense_.combine_orthonormal(w, two(2, 2), two(5, 3)), Error);
    EXPECT_THROW(dense_.exchange_products(two(3, 3), two(3, 3), host(2)), Error);
    EXPECT_THROW(dense_.symmetric_eigenvalues(two(3, 2), host(6)), Error);
    EXPECT_THROW(dense_.symmetric_eigenvalues(two(3, 3), host(7)), Error);
    EXPECT_THROW((void)dense_.general_eigenvalues(two(3, 3), host(6), host(5)), Error);
    EXPECT_THROW(dense_.read(two(3, 2), host(11)), Error);
    expect_called(0);
}

}  // namespace
}  // namespace geom
