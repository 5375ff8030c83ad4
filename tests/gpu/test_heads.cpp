// heads_of_layer on a GPU against the same on a processor, and against 60 digits.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <sstream>

#include "core/error.hpp"
#include "gpu/on_gpu.hpp"
#include "measures/heads.hpp"
#include "support/heads_checks.hpp"

namespace geom {
namespace {

using namespace test;

/// The blocks of a layer, in host memory.
struct Layer {
    std::int64_t head_dim, hidden;
    std::vector<Rows> q, k;

    static Layer random(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, std::int64_t hidden) {
        Layer layer{head_dim, hidden, {}, {}};
        for (unsigned i = 0; i < heads; ++i) layer.q.push_back(random_rows(head_dim, hidden, i + 1));
        for (unsigned i = 0; i < kv_heads; ++i) layer.k.push_back(random_rows(head_dim, hidden, 1000 + i));
        return layer;
    }
};

class HeadsOnGpu : public test::OnGpu {
protected:
    HeadsOfLayer on_cpu(const Layer& layer, std::int64_t top_k) {
        const auto blocks = [&](const std::vector<Rows>& from) {
            std::vector<MatrixRef> refs;
            for (const Rows& rows : from) {
                refs.push_back(
                    {reinterpret_cast<const std::byte*>(rows.data()), DType::f64, layer.head_dim, layer.hidden});
            }
            return refs;
        };
        const auto q = blocks(layer.q), k = blocks(layer.k);
        return heads_of_layer(cpu_, {0, q, k}, top_k);
    }

    HeadsOfLayer on_gpu(const Layer& layer, std::int64_t top_k) {
        std::vector<Buffer> memory;
        const auto blocks = [&](const std::vector<Rows>& from) {
            std::vector<MatrixRef> refs;
            for (const Rows& rows : from) {
                memory.push_back(gpu_->allocate(std::ssize(rows) * 8));
                copy(memory.back().data(), rows.data(), rows.size() * 8);
                refs.push_back({memory.back().data(), DType::f64, layer.head_dim, layer.hidden});
            }
            return refs;
        };
        const auto q = blocks(layer.q), k = blocks(layer.k);
        return heads_of_layer(*gpu_, {0, q, k}, top_k);
    }

    /// Both, and whatever of them may be compared; the directions by what they are.
    HeadsOfLayer expect_agreement(const Layer& layer, std::int64_t top_k) {
        HeadsOfLayer found = on_gpu(layer, top_k);
        const HeadsOfLayer expected = on_cpu(layer, top_k);
        const std::int64_t n = layer.head_dim, group = std::ssize(layer.q) / std::ssize(layer.k);
        for (std::int64_t h = 0; h < found.heads; ++h) {
            SCOPED_TRACE("head " + std::to_string(h));
            const auto part = [&](const Rows& all, std::int64_t length) {
                return std::span(&all[at(h * length)], at(length));
            };
            const auto s = part(expected.singular_values, n);
            for (std::int64_t i = 0; i < n; ++i) {
                EXPECT_NEAR(part(found.singular_values, n)[at(i)], s[at(i)], 4 * static_cast<double>(n) * eps * s[0]);
                EXPECT_EQ(part(found.singular_values, n)[at(i)] == 0, s[at(i)] == 0);
            }
            expect_same_spectrum(part(found.sym_eigs, 2 * n), part(expected.sym_eigs, 2 * n), 1e-13 * s[0]);
            expect_same_spectrum(part(found.eigvals_re, n), part(found.eigvals_im, n), part(expected.eigvals_re, n),
                                 part(expected.eigvals_im, n), 1e-11 * s[0]);
            expect_directions(found, h, layer.q[at(h)], layer.k[at(h / group)]);
            for (const auto scalar : {&HeadsOfLayer::eff_rank, &HeadsOfLayer::eff_rank_energy,
                                      &HeadsOfLayer::stable_rank, &HeadsOfLayer::asymmetry, &HeadsOfLayer::positivity,
                                      &HeadsOfLayer::sym_positive_energy, &HeadsOfLayer::fro_sq}) {
                const double x = (found.*scalar)[at(h)], y = (expected.*scalar)[at(h)];
                EXPECT_EQ(std::isnan(x), std::isnan(y));
                if (std::isnan(y)) continue;
                EXPECT_NEAR(x, y, 1e-10 * std::max(1.0, std::abs(y)));
            }
        }
        return found;
    }
};

TEST_F(HeadsOnGpu, are_those_of_the_processor_for_random_heads) {
    expect_agreement(Layer::random(2, 2, 32, 96), 8);
    expect_agreement(Layer::random(4, 1, 7, 20), 7);
    expect_agreement(Layer::random(1, 1, 1, 1), 8);
    expect_agreement(Layer::random(2, 1, 2, 5), 0);
}

TEST_F(HeadsOnGpu, are_those_of_the_processor_for_more_heads_than_are_held_at_once) {
    expect_agreement(Layer::random(136, 8, 5, 20), 3);
}

TEST_F(HeadsOnGpu, are_those_of_the_processor_for_heads_wider_than_the_hidden_space) {
    const HeadsOfLayer found = expect_agreement(Layer::random(2, 1, 9, 6), 9);
    EXPECT_EQ(std::count(found.singular_values.begin(), found.singular_values.end(), 0.0), 6);
}

TEST_F(HeadsOnGpu, are_those_of_the_processor_where_rank_is_planted) {
    Layer layer{12, 40, {}, {}};
    layer.q.push_back(product(random_rows(12, 3, 1), random_rows(3, 40, 2), 3));  // rank 3
    layer.q.push_back(random_rows(12, 40, 3));
    layer.q.emplace_back(at(12 * 40));  // zero
    layer.q.push_back(layer.q[1]);
    layer.k.push_back(random_rows(12, 40, 4));
    layer.k.push_back(layer.q[1]);  // queries that are keys
    const HeadsOfLayer found = expect_agreement(layer, 8);
    EXPECT_EQ(std::count_if(found.singular_values.begin(), found.singular_values.begin() + 12,
                            [](double s) { return s > 0; }),
              3);
    EXPECT_TRUE(std::isnan(found.eff_rank[2]));
    EXPECT_LT(found.asymmetry[3], 1e-13);
    EXPECT_NEAR(found.positivity[3], 1.0, 1e-13);
}

TEST_F(HeadsOnGpu, name_the_head_that_holds_NaN) {
    Layer layer = Layer::random(4, 2, 4, 8);
    layer.q[3][5] = std::numeric_limits<double>::quiet_NaN();
    try {
        on_gpu(layer, 2);
        FAIL() << "NaN went unnoticed";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::numerics);
        EXPECT_NE(std::string(error.what()).find("W_Q of head 3"), std::string::npos) << error.what();
    }
    expect_agreement(Layer::random(4, 2, 4, 8), 2);  // and the next layer may be measured
}

TEST_F(HeadsOnGpu, have_the_same_bits_in_every_run) {
    const Layer layer = Layer::random(6, 2, 16, 50);
    const HeadsOfLayer one = on_gpu(layer, 4), two = on_gpu(layer, 4);
    EXPECT_EQ(one.singular_values, two.singular_values);
    EXPECT_EQ(one.eigvals_re, two.eigvals_re);
    EXPECT_EQ(one.sym_eigs, two.sym_eigs);
    EXPECT_EQ(one.right_dirs, two.right_dirs);
    EXPECT_EQ(one.left_dirs, two.left_dirs);
    EXPECT_EQ(one.asymmetry, two.asymmetry);
}

TEST_F(HeadsOnGpu, keep_no_more_memory_than_was_foretold) {
    for (const auto& [head_dim, hidden] : {std::pair<std::int64_t, std::int64_t>(8, 30), {4, 3000}, {6, 4}}) {
        Layer layer = Layer::random(6, 2, head_dim, hidden);
        layer.q[1] = Rows(layer.q[1].size());  // by QR
        const cuda::CudaDenseBatch fresh(*device_, workers_);
        on_gpu(layer, 4);
        EXPECT_LE(gpu_->held_bytes(), fresh.scratch_bytes(6, head_dim, hidden, 4));
        gpu_ = std::make_unique<cuda::CudaDenseBatch>(*device_, workers_);
    }
}

// --- hard heads: 60 digits on the explicit operator (tests/reference/heads_reference.py) -----------------------------

std::int64_t positive(const Rows& values) {
    return std::count_if(values.begin(), values.end(), [](double x) { return x > 0; });
}

TEST_F(HeadsOnGpu, agree_with_sixty_digits_on_hard_heads) {
    const auto hard = hard_heads();
    ASSERT_GE(hard.size(), 20U);
    for (const HardHead& head : hard) {
        SCOPED_TRACE(head.name);
        const HeadsOfLayer heads = on_gpu({head.head_dim, head.hidden, {head.q}, {head.k}}, head.head_dim);
        const double largest = head.singular_values[0];
        for (std::size_t i = 0; i < head.singular_values.size(); ++i) {
            const double expected = head.singular_values[i];
            EXPECT_NEAR(heads.singular_values[i], expected, 4 * static_cast<double>(head.head_dim) * eps * largest);
            EXPECT_TRUE(expected != 0 || heads.singular_values[i] == 0);
        }
        expect_same_spectrum(heads.sym_eigs, head.sym_eigs, 1e-13 * largest);
        expect_same_spectrum(heads.eigvals_re, heads.eigvals_im, head.eigvals_re, head.eigvals_im, 1e-13 * largest);
        EXPECT_EQ(positive(heads.sym_eigs), positive(head.sym_eigs));
        expect_directions(heads, 0, head.q, head.k);
    }
}

TEST_F(HeadsOnGpu, keep_small_singular_values_beside_an_outlier) {
    for (const HardHead& head : hard_heads()) {
        if (head.name != "an outlier of 1e6" && head.name != "condition 1e8 of queries alone") continue;
        const HeadsOfLayer heads = on_gpu({head.head_dim, head.hidden, {head.q}, {head.k}}, 1);
        EXPECT_NEAR(heads.singular_values.back() / head.singular_values.back(), 1.0, 1e-8) << head.name;
    }
}

}  // namespace
}  // namespace geom
