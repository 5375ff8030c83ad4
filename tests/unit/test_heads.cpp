#include "measures/heads.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>

#include "checkpoint/checkpoint.hpp"
#include "core/error.hpp"
#include "kernels/cpu/dense_batch.hpp"
#include "output/hdf5_file.hpp"
#include "support/heads_checks.hpp"

namespace geom {
namespace {

using namespace test;

MatrixRef stored(const Rows& rows, std::int64_t head_dim) {
    const auto hidden = static_cast<std::int64_t>(rows.size()) / head_dim;
    return {reinterpret_cast<const std::byte*>(rows.data()), DType::f64, head_dim, hidden};
}

/// The heads of a layer with one head.
HeadsOfLayer one_head(const Rows& q, const Rows& k, std::int64_t head_dim, std::int64_t top_k) {
    Workers workers(1);
    cpu::CpuDenseBatch dense(workers);
    const MatrixRef q_block = stored(q, head_dim), k_block = stored(k, head_dim);
    return heads_of_layer(dense, {0, {&q_block, 1}, {&k_block, 1}}, top_k);
}

std::int64_t count(std::span<const double> values, const std::function<bool(double)>& what) {
    return std::count_if(values.begin(), values.end(), what);
}

bool is_positive(double x) { return x > 0; }
bool is_negative(double x) { return x < 0; }

/// Orthonormal rows: Gram-Schmidt, twice.
Rows orthonormal_rows(std::int64_t rows, std::int64_t cols, unsigned seed) {
    Rows out = random_rows(rows, cols, seed);
    for (std::int64_t i = 0; i < rows; ++i) {
        double* row = &out[at(i * cols)];
        for (int pass = 0; pass < 2; ++pass) {
            for (std::int64_t j = 0; j < i; ++j) {
                const double overlap = dot(row, &out[at(j * cols)], cols);
                for (std::int64_t d = 0; d < cols; ++d) row[d] -= overlap * out[at(j * cols + d)];
            }
        }
        const double norm = std::sqrt(dot(row, row, cols));
        for (std::int64_t d = 0; d < cols; ++d) row[d] /= norm;
    }
    return out;
}

// --- planted structure -----------------------------------------------------------------------------------------------

/// Q = A S^(1/2) V, K = A S^(1/2) U with an orthogonal A: g = K^T Q = U^T S V.
struct Planted {
    std::int64_t head_dim = 40, hidden = 130;
    Rows v = orthonormal_rows(40, 130, 1), u = orthonormal_rows(40, 130, 2), q, k;

    explicit Planted(const std::vector<double>& s) {
        Rows mixed = orthonormal_rows(40, 40, 3);
        for (std::int64_t i = 0; i < 40; ++i) {
            for (std::int64_t j = 0; j < 40; ++j) mixed[at(i * 40 + j)] *= std::sqrt(s[at(j)]);
        }
        q = product(mixed, v, 40);
        k = product(mixed, u, 40);
    }
};

// f32 as far as it goes, and f64 to where it is refused.
TEST(Heads, of_weights_far_from_one_are_those_of_ordinary_ones_times_the_powers_of_two) {
    Workers workers(1);
    cpu::CpuDenseBatch dense(workers);
    const std::int64_t n = 6, hidden = 20;
    const Rows q = random_rows(n, hidden, 1), k = random_rows(n, hidden, 2);
    const auto heads_times = [&](int of_q, int of_k) {
        Rows scaled_q = q, scaled_k = k;
        for (double& x : scaled_q) x = std::ldexp(x, of_q);
        for (double& x : scaled_k) x = std::ldexp(x, of_k);
        MatrixRef q_block = stored(scaled_q, n), k_block = stored(scaled_k, n);
        q_block.exponent = block_exponent(of_q + 2);  // the largest of 120 normal numbers
        k_block.exponent = block_exponent(of_k + 2);
        return heads_of_layer(dense, {0, {&q_block, 1}, {&k_block, 1}}, 4);
    };
    const HeadsOfLayer plain = heads_times(0, 0);
    for (int power = -200; power <= 198; power += 11) {
        for (const int other : {power, -power, 0}) {
            SCOPED_TRACE(std::to_string(power) + " " + std::to_string(other));
            expect_scaled(heads_times(power, other), plain, power + other);
        }
    }
}

TEST(Heads, find_planted_singular_values_and_directions) {
    std::vector<double> s(40);
    for (std::size_t i = 0; i < 40; ++i) s[i] = 8.0 / static_cast<double>(i + 1);
    const Planted planted(s);
    const HeadsOfLayer heads = one_head(planted.q, planted.k, 40, 8);
    for (std::size_t i = 0; i < 40; ++i) EXPECT_NEAR(heads.singular_values[i], s[i], 1e-13);
    expect_directions(heads, 0, planted.q, planted.k);
    for (std::int64_t i = 0; i < 8; ++i) {
        double right = 0, left = 0;
        for (std::int64_t d = 0; d < 130; ++d) {
            right += static_cast<double>(heads.right_dirs[at(i * 130 + d)]) * planted.v[at(i * 130 + d)];
            left += static_cast<double>(heads.left_dirs[at(i * 130 + d)]) * planted.u[at(i * 130 + d)];
        }
        EXPECT_NEAR(std::abs(right), 1.0, 1e-6);
        EXPECT_NEAR(left, right, 1e-6) << "the pair flips together";
    }
}

TEST(Heads, span_the_planted_subspace_where_singular_values_are_equal) {
    std::vector<double> s(40, 1.0);
    std::fill_n(s.begin(), 4, 3.0);
    const Planted planted(s);
    const HeadsOfLayer heads = one_head(planted.q, planted.k, 40, 4);
    expect_directions(heads, 0, planted.q, planted.k);
    for (std::int64_t i = 0; i < 4; ++i) {  // the projector on the planted four leaves each found one as it is
        double inside = 0;
        for (std::int64_t j = 0; j < 4; ++j) {
            double overlap = 0;
            for (std::int64_t d = 0; d < 130; ++d) {
                overlap += static_cast<double>(heads.right_dirs[at(i * 130 + d)]) * planted.v[at(j * 130 + d)];
            }
            inside += overlap * overlap;
        }
        EXPECT_NEAR(inside, 1.0, 1e-6);
    }
}

TEST(Heads, give_scalars_as_they_are_defined) {
    std::vector<double> s(40);
    s[0] = 3, s[1] = 2, s[2] = 1;
    const Planted planted(s);
    const HeadsOfLayer heads = one_head(planted.q, planted.k, 40, 8);
    EXPECT_EQ(count(heads.singular_values, is_positive), 3);
    EXPECT_NEAR(heads.fro_sq[0], 14.0, 1e-12);
    EXPECT_NEAR(heads.stable_rank[0], 14.0 / 9.0, 1e-12);
    const auto entropy = [](double a, double b, double c) {
        return std::exp(-a * std::log(a) - b * std::log(b) - c * std::log(c));
    };
    EXPECT_NEAR(heads.eff_rank[0], entropy(0.5, 2.0 / 6, 1.0 / 6), 1e-12);
    EXPECT_NEAR(heads.eff_rank_energy[0], entropy(9.0 / 14, 4.0 / 14, 1.0 / 14), 1e-12);
    double symmetric = 0;  // ||g - g^T||^2 = 4 ||g||^2 - ||g + g^T||^2
    for (const double x : heads.sym_eigs) symmetric += x * x;
    EXPECT_NEAR(heads.asymmetry[0] * heads.asymmetry[0], 4 - symmetric / 14.0, 1e-12);
    EXPECT_EQ(count(heads.sym_eigs, is_positive), 3);
    EXPECT_EQ(count(heads.sym_eigs, is_negative), 3);
    expect_directions(heads, 0, planted.q, planted.k);
}

TEST(Heads, give_no_ratios_for_a_zero_operator) {
    const HeadsOfLayer heads = one_head(Rows(at(4 * 9)), random_rows(4, 9, 1), 4, 3);
    for (const auto* ratios : {&heads.eff_rank, &heads.eff_rank_energy, &heads.stable_rank, &heads.asymmetry,
                               &heads.positivity, &heads.sym_positive_energy}) {
        EXPECT_TRUE(std::isnan(ratios->front()));
    }
    EXPECT_EQ(heads.fro_sq[0], 0.0);
    EXPECT_TRUE(std::all_of(heads.left_dirs.begin(), heads.left_dirs.end(), [](float x) { return std::isnan(x); }));
}

TEST(Heads, are_exactly_symmetric_where_queries_are_keys) {
    const Rows same = random_rows(16, 48, 4);
    const HeadsOfLayer heads = one_head(same, same, 16, 4);
    EXPECT_LT(heads.asymmetry[0], 1e-14);
    EXPECT_NEAR(heads.positivity[0], 1.0, 1e-13);
    EXPECT_NEAR(heads.sym_positive_energy[0], 1.0, 1e-13);
    EXPECT_EQ(count(heads.sym_eigs, is_positive), 16);
    EXPECT_EQ(count(heads.sym_eigs, is_negative), 0);
}

// --- hard heads: 60 digits on the explicit operator (tests/reference/heads_reference.py) -----------------------------

TEST(Heads, agree_with_sixty_digits_on_hard_heads) {
    const auto hard = hard_heads();
    ASSERT_GE(hard.size(), 20U);
    for (const HardHead& head : hard) {
        SCOPED_TRACE(head.name);
        const HeadsOfLayer heads = one_head(head.q, head.k, head.head_dim, head.head_dim);
        const double largest = head.singular_values[0];
        for (std::size_t i = 0; i < head.singular_values.size(); ++i) {
            const double expected = head.singular_values[i];
            EXPECT_NEAR(heads.singular_values[i], expected, 4 * static_cast<double>(head.head_dim) * eps * largest);
            if (expected == 0) {
                EXPECT_EQ(heads.singular_values[i], 0.0);
            }
        }
        expect_same_spectrum(heads.sym_eigs, head.sym_eigs, 1e-13 * largest);
        expect_same_spectrum(heads.eigvals_re, heads.eigvals_im, head.eigvals_re, head.eigvals_im, 1e-13 * largest);
        EXPECT_EQ(count(heads.sym_eigs, is_positive), count(head.sym_eigs, is_positive));
        EXPECT_EQ(count(heads.sym_eigs, is_negative), count(head.sym_eigs, is_negative));
        expect_directions(heads, 0, head.q, head.k);
    }
}

TEST(Heads, keep_small_singular_values_beside_an_outlier) {
    for (const HardHead& head : hard_heads()) {
        if (head.name != "an outlier of 1e6" && head.name != "condition 1e8 of queries alone") continue;
        const HeadsOfLayer heads = one_head(head.q, head.k, head.head_dim, 1);
        const double expected = head.singular_values.back();
        EXPECT_NEAR(heads.singular_values.back() / expected, 1.0, 1e-8) << head.name;
    }
}

// --- golden files ----------------------------------------------------------------------------------------------------

/// The stored bytes of one weight.
std::vector<std::byte> read_weight(const Checkpoint& checkpoint, const Weight& weight) {
    const auto& source = std::get<FileSource>(weight.source);
    std::vector<std::byte> bytes(at(weight.rows * weight.cols * size_of(weight.dtype)));
    std::ifstream file(checkpoint.files()[at(source.file)], std::ios::binary);
    file.seekg(source.offset);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    EXPECT_TRUE(file.good());
    return bytes;
}

std::vector<MatrixRef> blocks_of(const std::vector<std::byte>& bytes, const Weight& weight, std::int64_t head_dim) {
    std::vector<MatrixRef> blocks;
    const std::int64_t block = head_dim * weight.cols * size_of(weight.dtype);
    for (std::int64_t row = 0; row < weight.rows; row += head_dim) {
        blocks.push_back({bytes.data() + row / head_dim * block, weight.dtype, head_dim, weight.cols});
    }
    return blocks;
}

/// One layer of a golden variable.
std::vector<double> layer_of(const Hdf5File& file, const std::string& path, std::int64_t layer) {
    const auto all = file.read_numbers(path);
    const auto size = static_cast<std::ptrdiff_t>(all.size()) / file.shape(path)[0];
    return {all.begin() + layer * size, all.begin() + (layer + 1) * size};
}

/// Values to `relative` of the head's scale; NaN exactly where NaN is expected.
template <class T>
void expect_close(const std::vector<T>& found, const std::vector<double>& expected, double relative,
                  std::span<const double> scales = {}) {
    ASSERT_EQ(found.size(), expected.size());
    const std::size_t a_head = scales.empty() ? 1 : expected.size() / scales.size();
    for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(std::isnan(found[i]), std::isnan(expected[i])) << "number " << i;
        if (std::isnan(expected[i])) continue;
        const double scale = scales.empty() ? std::max(1.0, std::abs(expected[i])) : scales[i / a_head];
        EXPECT_NEAR(static_cast<double>(found[i]), expected[i], relative * scale) << "number " << i;
    }
}

void expect_golden(const HeadsOfLayer& heads, const Hdf5File& golden, std::int64_t layer) {
    std::vector<double> largest;
    for (std::int64_t h = 0; h < heads.heads; ++h) largest.push_back(heads.singular_values[at(h * heads.head_dim)]);
    const auto check = [&](const char* name, const auto& found, double relative, std::span<const double> scales) {
        SCOPED_TRACE(name);
        expect_close(found, layer_of(golden, std::string("heads/") + name, layer), relative, scales);
    };
    check("singular_values", heads.singular_values, 1e-13, largest);
    check("eigvals_re", heads.eigvals_re, 1e-12, largest);
    check("eigvals_im", heads.eigvals_im, 1e-12, largest);
    check("sym_eigs", heads.sym_eigs, 1e-13, largest);
    check("right_dirs", heads.right_dirs, 1e-7, {});
    check("left_dirs", heads.left_dirs, 1e-7, {});
    check("eff_rank", heads.eff_rank, 1e-12, {});
    check("eff_rank_energy", heads.eff_rank_energy, 1e-12, {});
    check("stable_rank", heads.stable_rank, 1e-12, {});
    check("asymmetry", heads.asymmetry, 1e-12, {});
    check("positivity", heads.positivity, 1e-11, {});
    check("sym_positive_energy", heads.sym_positive_energy, 1e-12, {});
    check("fro_sq", heads.fro_sq, 1e-12, {});
}

class GoldenHeads : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenHeads, are_reproduced) {
    const std::string folder = std::string(GEOM_TEST_DATA) + "/golden/" + GetParam();
    const Checkpoint checkpoint = Checkpoint::open(folder, "", "");
    const Hdf5File golden = Hdf5File::open(folder + "/golden.h5", Hdf5File::Access::read);
    const std::int64_t layers = golden.shape("heads/fro_sq")[0], head_dim = golden.shape("heads/singular_values")[2];
    Workers workers(2);
    cpu::CpuDenseBatch dense(workers);
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        SCOPED_TRACE("layer " + std::to_string(layer));
        const Weight q = checkpoint.weight(WeightFamily::q_proj, layer);
        const Weight k = checkpoint.weight(WeightFamily::k_proj, layer);
        const auto q_bytes = read_weight(checkpoint, q), k_bytes = read_weight(checkpoint, k);
        const auto q_blocks = blocks_of(q_bytes, q, head_dim), k_blocks = blocks_of(k_bytes, k, head_dim);
        expect_golden(heads_of_layer(dense, {layer, q_blocks, k_blocks}, 8), golden, layer);
        if (!golden.has("heads_top16/right_dirs")) continue;
        const HeadsOfLayer top16 = heads_of_layer(dense, {layer, q_blocks, k_blocks}, 16);
        expect_close(top16.right_dirs, layer_of(golden, "heads_top16/right_dirs", layer), 1e-7);
        expect_close(top16.left_dirs, layer_of(golden, "heads_top16/left_dirs", layer), 1e-7);
    }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenHeads,
                         ::testing::Values("qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny"),
                         [](const auto& model) {
                             std::string name = model.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

// --- the rest --------------------------------------------------------------------------------------------------------

struct Layer {
    std::vector<Rows> weights;
    std::vector<MatrixRef> q, k;

    Layer(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, std::int64_t hidden) {
        for (unsigned i = 0; i < heads + kv_heads; ++i) weights.push_back(random_rows(head_dim, hidden, i + 1));
        for (std::int64_t i = 0; i < heads; ++i) q.push_back(stored(weights[at(i)], head_dim));
        for (std::int64_t i = heads; i < heads + kv_heads; ++i) k.push_back(stored(weights[at(i)], head_dim));
    }
};

HeadsOfLayer with_threads(const Layer& layer, int threads) {
    Workers workers(threads);
    cpu::CpuDenseBatch dense(workers);
    return heads_of_layer(dense, {0, layer.q, layer.k}, 8);
}

TEST(Heads, have_the_same_bits_with_any_number_of_threads) {
    const Layer layer(8, 2, 64, 200);
    const HeadsOfLayer one = with_threads(layer, 1);
    for (const int threads : {2, 3, 8}) {
        const HeadsOfLayer many = with_threads(layer, threads);
        EXPECT_EQ(one.singular_values, many.singular_values);
        EXPECT_EQ(one.eigvals_re, many.eigvals_re);
        EXPECT_EQ(one.eigvals_im, many.eigvals_im);
        EXPECT_EQ(one.sym_eigs, many.sym_eigs);
        EXPECT_EQ(one.right_dirs, many.right_dirs);
        EXPECT_EQ(one.left_dirs, many.left_dirs);
        EXPECT_EQ(one.asymmetry, many.asymmetry);
    }
}

TEST(Heads, do_not_depend_on_the_heads_beside_them) {
    const Layer layer(72, 8, 6, 20);  // more than are held at once
    const HeadsOfLayer together = with_threads(layer, 2);
    for (const std::int64_t h : {0, 8, 35, 36, 71}) {
        const HeadsOfLayer alone = one_head(layer.weights[at(h)], layer.weights[at(72 + h / 9)], 6, 8);
        for (std::int64_t i = 0; i < 6; ++i) {
            EXPECT_EQ(together.singular_values[at(h * 6 + i)], alone.singular_values[at(i)]);
            EXPECT_EQ(together.eigvals_re[at(h * 6 + i)], alone.eigvals_re[at(i)]);
        }
        EXPECT_EQ(together.asymmetry[at(h)], alone.asymmetry[0]);
    }
}

TEST(Heads, refuse_query_heads_that_key_heads_do_not_divide) {
    const Layer layer(3, 2, 4, 8);
    EXPECT_THROW(with_threads(layer, 1), Error);
}

TEST(Heads, name_the_head_that_holds_NaN) {
    Layer layer(4, 2, 4, 8);
    layer.weights[3][5] = std::numeric_limits<double>::quiet_NaN();
    try {
        with_threads(layer, 1);
        FAIL() << "NaN went unnoticed";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::numerics);
        EXPECT_NE(std::string(error.what()).find("W_Q of head 3"), std::string::npos) << error.what();
    }
}

TEST(HeadsRecords, fit_the_schema_they_declare) {
    const Layer layer(4, 2, 5, 12);
    const HeadsOfLayer heads = with_threads(layer, 1);
    Schema schema;
    const std::pair<const char*, std::int64_t> scales[] = {{"layer", 3}, {"head", 4},      {"rank", 5},
                                                           {"sym", 10},  {"direction", 5}, {"hidden", 12}};
    for (const auto& [name, length] : scales) {
        Scale scale;
        scale.name = name;
        scale.length = length;
        schema.scales.push_back(scale);
    }
    schema.variables = heads_variables();
    const auto slabs = heads_slabs(schema, 2, heads);
    ASSERT_EQ(slabs.size(), schema.variables.size());
    for (const Slab& slab : slabs) {
        const Variable& variable = schema.variables[at(slab.variable)];
        SCOPED_TRACE(variable.path());
        EXPECT_EQ(variable.group, "heads");
        EXPECT_FALSE(variable.long_name.empty());
        auto shape = schema.shape_of(variable);
        shape[0] = 1;
        EXPECT_EQ(slab.count, shape);
        EXPECT_EQ(slab.start[0], 2);
        EXPECT_EQ(static_cast<std::int64_t>(slab.data.size()), slab.elements() * size_of(variable.type));
    }
    double first = 0;
    std::memcpy(&first, slabs[0].data.data(), sizeof first);
    EXPECT_EQ(first, heads.singular_values[0]);
}

}  // namespace
}  // namespace geom
