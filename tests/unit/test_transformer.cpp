// The steps of a forward pass on a processor against naive ones: small sizes with exact numbers, and one size beyond a
// panel of tokens, a tile of rows, a run of terms and a block of keys.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "core/dtype.hpp"
#include "core/error.hpp"
#include "kernels/backend.hpp"
#include "reference/transformer.hpp"

namespace geom {
namespace {

using reference::Numbers;
using reference::Table;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Small whole numbers: every product and sum of them is exact in f32 and bf16.
Table whole_numbers(std::int64_t rows, std::int64_t cols, unsigned seed) {
    Table table(rows, cols);
    std::minstd_rand draw(seed);
    for (double& value : table.values) value = static_cast<double>(draw() % 7) - 3.0;
    return table;
}

/// Rounded to f32 (to bf16 where asked), so that both sides have the same.
Table random_numbers(std::int64_t rows, std::int64_t cols, unsigned seed, bool bf16 = false) {
    Table table(rows, cols);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (double& value : table.values) {
        const float number = normal(random);
        value = static_cast<double>(bf16 ? bf16_to_f32(f32_to_bf16(number)) : number);
    }
    return table;
}

std::vector<float> in_f32(const Table& table) {
    std::vector<float> numbers(table.values.size());
    std::transform(table.values.begin(), table.values.end(), numbers.begin(),
                   [](double value) { return static_cast<float>(value); });
    return numbers;
}

/// A weight as stored.
class Stored {
public:
    Stored(const Table& table, DType dtype) : bytes_(at(table.rows * table.cols * size_of(dtype))) {
        for (std::size_t i = 0; i < table.values.size(); ++i) {
            const double value = table.values[i];
            const auto single = static_cast<float>(value);
            const std::uint16_t half = dtype == DType::bf16 ? f32_to_bf16(single) : f64_to_f16(value);
            const void* from = size_of(dtype) == 2   ? static_cast<const void*>(&half)
                               : dtype == DType::f32 ? static_cast<const void*>(&single)
                                                     : static_cast<const void*>(&value);
            std::memcpy(bytes_.data() + i * at(size_of(dtype)), from, at(size_of(dtype)));
        }
        ref_ = {bytes_.data(), dtype, table.rows, table.cols};
    }
    const MatrixRef& ref() const { return ref_; }

private:
    std::vector<std::byte> bytes_;
    MatrixRef ref_;
};

class TransformerVerbs : public ::testing::TestWithParam<Isa> {
protected:
    void SetUp() override {
        if (GetParam() > processor_isa()) GTEST_SKIP() << "this processor has no " << name_of(GetParam());
        backend_ = make_cpu_backend(2, GetParam());
    }
    Transformer& verbs() { return backend_->transformer(); }

    Activations empty(std::int64_t tokens, std::int64_t width) {
        memory_.push_back(allocate_host(verbs().activation_bytes(tokens, width)));
        return {memory_.back().as<float>(), tokens, width};
    }
    // In panels of 16 tokens (kernels/cpu/lanes.hpp); what fills the last one up is not to matter.
    Activations activations(const Table& x) {
        const Activations out = empty(x.rows, x.cols);
        std::fill_n(out.data, (x.rows + 15) / 16 * 16 * x.cols, 1e30F);
        for (std::int64_t t = 0; t < x.rows; ++t) {
            for (std::int64_t i = 0; i < x.cols; ++i)
                out.data[t / 16 * 16 * x.cols + i * 16 + t % 16] = static_cast<float>(x.at(t, i));
        }
        return out;
    }
    Table read(const Activations& x) {
        std::vector<float> rows(at(x.tokens * x.width), 0.0F);
        verbs().add(x, rows.data());
        Table table(x.tokens, x.width);
        std::copy(rows.begin(), rows.end(), table.values.begin());
        return table;
    }
    static void expect_near(const Table& found, const Table& expected, double bound) {
        ASSERT_EQ(found.values.size(), expected.values.size());
        for (std::int64_t i = 0; i < expected.rows; ++i) {
            for (std::int64_t j = 0; j < expected.cols; ++j)
                ASSERT_NEAR(found.at(i, j), expected.at(i, j), bound) << i << ", " << j;
        }
    }

    std::unique_ptr<Backend> backend_;
    std::vector<Buffer> memory_;
};

TEST_P(TransformerVerbs, products_of_whole_numbers_are_exact_whatever_the_weights_type) {
    for (const std::int64_t size : {1, 3, 5}) {
        const Table x = whole_numbers(size, size + 1, 1), w = whole_numbers(size + 2, size + 1, 2),
                    bias = whole_numbers(1, size + 2, 3);
        Table expected = reference::product(x, w);
        for (std::int64_t t = 0; t < size; ++t) {
            for (std::int64_t i = 0; i < size + 2; ++i) expected.at(t, i) += bias.at(0, i);
        }
        for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
            const Stored weights(w, dtype), added(bias, dtype);
            const Activations out = empty(size, size + 2);
            verbs().product(activations(x), weights.ref(), &added.ref(), out);
            EXPECT_EQ(read(out).values, expected.values) << size << " " << name_of(dtype);
        }
    }
}

TEST_P(TransformerVerbs, products_beyond_a_tile_a_run_and_three_panels) {
    const Table x = random_numbers(70, 531, 4), w = random_numbers(101, 531, 5, true);
    const Activations out = empty(70, 101);
    verbs().product(activations(x), Stored(w, DType::bf16).ref(), nullptr, out);
    expect_near(read(out), reference::product(x, w), 531 * 6e-8 * 16);
}

TEST_P(TransformerVerbs, f32_products_are_those_of_f32_weights_where_they_are_asked_for) {
    verbs().use(ForwardProducts::f32);
    const Table x = random_numbers(19, 300, 6), w = random_numbers(50, 300, 7, true);
    const Activations stored = empty(19, 50), wide = empty(19, 50);
    verbs().product(activations(x), Stored(w, DType::bf16).ref(), nullptr, stored);
    verbs().product(activations(x), Stored(w, DType::f32).ref(), nullptr, wide);
    EXPECT_EQ(read(stored).values, read(wide).values);
    EXPECT_EQ(verbs().path(DType::bf16), verbs().path(DType::f32));
}

TEST_P(TransformerVerbs, rms_norm_of_short_and_of_long_rows) {
    for (const auto& [tokens, width] : {std::pair<int, int>{1, 3}, {5, 5}, {35, 70}}) {
        const Table x = random_numbers(tokens, width, 8), weight = random_numbers(1, width, 9);
        const Activations out = empty(tokens, width);
        verbs().rms_norm(in_f32(x).data(), Stored(weight, DType::f32).ref(), 1e-5, out);
        expect_near(read(out), reference::rms_norm(x, weight, 1e-5), 3e-6);
    }
}

TEST_P(TransformerVerbs, heads_are_normalised_and_then_turned_by_their_positions) {
    constexpr std::int64_t head_dim = 6, positions = 64, first = 16, tokens = 21;
    const Numbers frequencies = {1.0, 0.25, 0.01};
    std::vector<float> table(at(head_dim * positions));
    for (std::int64_t i = 0; i < head_dim / 2; ++i) {
        for (std::int64_t p = 0; p < positions; ++p) {
            const double angle = static_cast<double>(p) * frequencies[at(i)];
            table[at(i * positions + p)] = static_cast<float>(std::cos(angle));
            table[at((i + head_dim / 2) * positions + p)] = static_cast<float>(std::sin(angle));
        }
    }
    const Table x = random_numbers(tokens, 2 * head_dim, 10), norm = random_numbers(1, head_dim, 11);
    Activations out = activations(x);
    verbs().rotate(out, {table.data(), positions, first, head_dim, nullptr, 0});
    expect_near(read(out), reference::rotate(x, head_dim, frequencies, first), 1e-5);

    Table heads(2 * tokens, head_dim), normed(tokens, 2 * head_dim);
    heads.values = x.values;
    normed.values = reference::rms_norm(heads, norm, 1e-6).values;
    out = activations(x);
    const Stored weight(norm, DType::f32);
    verbs().rotate(out, {table.data(), positions, first, head_dim, &weight.ref(), 1e-6});
    expect_near(read(out), reference::rotate(normed, head_dim, frequencies, first), 1e-5);
}

// Chunks of 32 tokens; 300 keys are two blocks and a part.
TEST_P(TransformerVerbs, attention_sees_the_tokens_so_far_and_query_heads_share_keys) {
    for (const auto& [tokens, head_dim] : {std::pair<int, int>{1, 2}, {5, 5}, {300, 10}}) {
        const std::int64_t kv_heads = 2, heads = 6;
        const Table q = random_numbers(tokens, heads * head_dim, 12),
                    k = random_numbers(tokens, kv_heads * head_dim, 13),
                    v = random_numbers(tokens, kv_heads * head_dim, 14);
        const auto rows = [&](const Table& all, std::int64_t first) {
            Table some(std::min<std::int64_t>(32, tokens - first), all.cols);
            std::copy_n(all.values.begin() + first * all.cols, some.rows * some.cols, some.values.begin());
            return some;
        };
        KeysAndValues cache{nullptr, tokens, kv_heads, head_dim};
        const Buffer memory = allocate_host(verbs().cache_bytes(cache));
        cache.data = memory.as<float>();
        for (std::int64_t first = 0; first < tokens; first += 32) {
            const Table queries = rows(q, first);
            verbs().append(activations(rows(k, first)), activations(rows(v, first)), first, cache);
            const Activations out = empty(queries.rows, queries.cols);
            verbs().attend(activations(queries), cache, first, out);
            expect_near(read(out), reference::attend(queries, k, v, head_dim, first), 3e-6);
        }
    }
}

TEST_P(TransformerVerbs, scores_that_grow_from_block_to_block_shrink_what_came_before) {
    constexpr std::int64_t tokens = 290, head_dim = 4;
    Table q(tokens, head_dim), k(tokens, head_dim), v = random_numbers(tokens, head_dim, 15);
    for (std::int64_t t = 0; t < tokens; ++t) {
        q.at(t, 0) = 2.0;
        k.at(t, 0) = static_cast<double>(t) / 2.0;  // score t / 2; e^145 is no f32
    }
    KeysAndValues cache{nullptr, tokens, 1, head_dim};
    const Buffer memory = allocate_host(verbs().cache_bytes(cache));
    cache.data = memory.as<float>();
    verbs().append(activations(k), activations(v), 0, cache);
    const Activations out = empty(tokens, head_dim);
    verbs().attend(activations(q), cache, 0, out);
    expect_near(read(out), reference::attend(q, k, v, head_dim, 0), 3e-6);
}

TEST_P(TransformerVerbs, gates_are_silu_times_up_at_any_size) {
    Table gate = random_numbers(20, 9, 16), up = random_numbers(20, 9, 17), expected(20, 9);
    gate.at(0, 0) = -200.0;
    gate.at(0, 1) = 200.0;
    gate.at(0, 2) = 0.0;
    for (std::size_t i = 0; i < expected.values.size(); ++i)
        expected.values[i] = reference::silu(gate.values[i]) * up.values[i];
    const Activations out = activations(gate);
    verbs().gate(out, activations(up));
    expect_near(read(out), expected, 1e-6 * 200);
    EXPECT_NEAR(read(out).at(3, 3), expected.at(3, 3), 1e-6);
}

TEST_P(TransformerVerbs, a_router_chooses_the_likeliest_experts_and_ties_go_to_the_lower_number) {
    const Table x = random_numbers(18, 5, 18), router = random_numbers(7, 5, 19);
    const Table logits = reference::product(x, router);
    for (const bool renormalise : {false, true}) {
        std::vector<std::int32_t> experts(18 * 3);
        std::vector<float> weights(18 * 3);
        verbs().route(activations(x), Stored(router, DType::f32).ref(), {3, renormalise}, experts, weights);
        for (std::int64_t t = 0; t < 18; ++t) {
            Numbers probabilities;
            const auto row = logits.values.begin() + t * 7;
            const auto chosen = reference::route({row, row + 7}, 3, probabilities);
            double sum = 0;
            for (const std::int64_t expert : chosen) sum += probabilities[at(expert)];
            for (std::int64_t i = 0; i < 3; ++i) {
                EXPECT_EQ(experts[at(3 * t + i)], chosen[at(i)]) << t;
                EXPECT_NEAR(weights[at(3 * t + i)], probabilities[at(chosen[at(i)])] / (renormalise ? sum : 1.0), 1e-6);
            }
        }
    }
    std::vector<std::int32_t> experts(2);
    std::vector<float> weights(2);
    verbs().route(activations(Table(1, 5)), Stored(router, DType::f32).ref(), {2, true}, experts, weights);
    EXPECT_EQ(experts, (std::vector<std::int32_t>{0, 1}));
    EXPECT_EQ(weights, (std::vector<float>{0.5F, 0.5F}));
}

TEST_P(TransformerVerbs, tokens_of_an_expert_are_gathered_and_added_where_they_came_from) {
    const Table x = whole_numbers(40, 3, 20);
    const std::vector<std::int32_t> tokens = {0, 5, 17, 18, 39};
    const std::vector<float> weights = {1, 2, 4, 8, 0.5F};
    const Activations some = empty(5, 3);
    verbs().gather(activations(x), tokens, some);
    std::vector<float> stream(120, 1.0F);
    verbs().add_scaled(some, tokens, weights, stream.data());
    std::vector<float> expected(120, 1.0F);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        for (std::int64_t j = 0; j < 3; ++j)
            expected[at(tokens[i] * 3 + j)] += weights[i] * static_cast<float>(x.at(tokens[i], j));
    }
    EXPECT_EQ(stream, expected);
}

TEST_P(TransformerVerbs, rows_of_the_embedding_may_come_in_strips) {
    const Table table = whole_numbers(9, 4, 21);
    const Stored low(table, DType::bf16);
    const std::vector<std::int32_t> ids = {8, 0, 3, 3, 4};
    std::vector<float> stream(20, -1.0F);
    const MatrixRef whole = low.ref();
    verbs().embed({whole.data, whole.dtype, 4, 4}, 0, ids, stream.data());
    EXPECT_EQ(stream[0], -1.0F) << "id 8 is not among the first rows";
    verbs().embed({whole.data + 4 * 4 * 2, whole.dtype, 5, 4}, 4, ids, stream.data());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        for (std::int64_t j = 0; j < 4; ++j) EXPECT_EQ(stream[i * 4 + at(j)], table.at(ids[i], j));
    }
}

// 3500 rows are more than a round of tiles; the strips are uneven.
TEST_P(TransformerVerbs, logits_in_strips_give_each_tokens_surprise) {
    const Table x = random_numbers(20, 8, 22), head = random_numbers(3500, 8, 23);
    const Stored rows(head, DType::f32);
    const Table logits = reference::product(x, head);
    std::vector<std::int32_t> wanted(20);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = static_cast<std::int32_t>(i * 184);
    wanted[7] = -1;
    std::vector<double> largest(20, -INFINITY), sum(20, 0.0), found(20, NAN);
    for (const auto& [first, count] : {std::pair<int, int>{0, 3300}, {3300, 1}, {3301, 199}}) {
        verbs().add_logits(activations(x), {rows.ref().data + first * 8 * 4, DType::f32, count, 8}, first, wanted,
                           {largest, sum, found});
    }
    for (std::int64_t t = 0; t < 20; ++t) {
        if (wanted[at(t)] < 0) {
            EXPECT_TRUE(std::isnan(found[at(t)]));
            continue;
        }
        const auto row = logits.values.begin() + t * 3500;
        EXPECT_NEAR(largest[at(t)] + std::log(sum[at(t)]) - found[at(t)],
                    reference::surprise({row, row + 3500}, wanted[at(t)]), 1e-5);
    }
}

TEST_P(TransformerVerbs, NaN_stays_NaN) {
    Table x = random_numbers(2, 3, 24);
    x.at(1, 1) = NAN;
    const Activations gate = activations(x);
    verbs().gate(gate, activations(random_numbers(2, 3, 25)));
    EXPECT_TRUE(std::isnan(read(gate).at(1, 1)));
    KeysAndValues cache{nullptr, 2, 1, 3};
    const Buffer memory = allocate_host(verbs().cache_bytes(cache));
    cache.data = memory.as<float>();
    verbs().append(activations(x), activations(random_numbers(2, 3, 26)), 0, cache);
    const Activations out = empty(2, 3);
    verbs().attend(activations(random_numbers(2, 3, 27)), cache, 0, out);
    EXPECT_TRUE(std::isfinite(read(out).at(0, 0))) << "token 0 does not see token 1";
    EXPECT_TRUE(std::isnan(read(out).at(1, 0)));
}

INSTANTIATE_TEST_SUITE_P(Cpu, TransformerVerbs, ::testing::Values(Isa::portable, Isa::avx2, Isa::avx512, Isa::amx_bf16),
                         [](const auto& test) {
                             std::string name(name_of(test.param));
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST(TransformerChecks, operands_that_do_not_fit_reach_no_body) {
    const auto backend = make_cpu_backend(1, Isa::portable);
    Transformer& verbs = backend->transformer();
    std::vector<float> memory(4096);
    const Activations x{memory.data(), 2, 4}, narrow{memory.data(), 2, 3}, longer{memory.data(), 3, 4};
    const MatrixRef w{reinterpret_cast<const std::byte*>(memory.data()), DType::f32, 3, 4};
    const MatrixRef integers{w.data, DType::i8, 3, 4}, row{w.data, DType::f32, 1, 4};
    verbs.product(x, w, nullptr, narrow);
    EXPECT_THROW(verbs.product(x, w, nullptr, x), Error);
    EXPECT_THROW(verbs.product(narrow, w, nullptr, narrow), Error);
    EXPECT_THROW(verbs.product(x, integers, nullptr, narrow), Error);
    EXPECT_THROW(verbs.product(x, w, &row, narrow), Error) << "a bias of another width";
    EXPECT_THROW(verbs.rms_norm(nullptr, row, 1e-6, x), Error);
    EXPECT_THROW(verbs.gate(x, longer), Error);
    const HeadTurn turn{memory.data(), 16, 0, 4, nullptr, 0};
    EXPECT_THROW(verbs.rotate(narrow, turn), Error) << "not whole heads";
    EXPECT_THROW(verbs.rotate(x, {memory.data(), 16, 16, 4, nullptr, 0}), Error) << "beyond the table";
    EXPECT_THROW(verbs.rotate(x, {memory.data(), 16, 8, 4, nullptr, 0}), Error) << "between two steps";
    const KeysAndValues cache{memory.data(), 16, 1, 4};
    EXPECT_THROW(verbs.append(x, longer, 0, cache), Error);
    EXPECT_THROW(verbs.append(x, x, 16, cache), Error) << "beyond the cache";
    EXPECT_THROW(verbs.append(x, x, 8, cache), Error) << "between two steps";
    EXPECT_THROW(verbs.attend(narrow, cache, 0, narrow), Error);
    const std::int32_t beyond[] = {0, 2};
    EXPECT_THROW(verbs.gather(x, beyond, {memory.data(), 2, 4}), Error);
    std::vector<std::int32_t> experts(8);
    std::vector<float> weights(8);
    EXPECT_THROW(verbs.route(x, w, {4, false}, experts, weights), Error) << "more than there are";
    EXPECT_THROW((void)verbs.path(DType::i32), Error);
}

}  // namespace
}  // namespace geom
