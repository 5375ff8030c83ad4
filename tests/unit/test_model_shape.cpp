#include "core/model_shape.hpp"

#include <gtest/gtest.h>

#include "checkpoint/describe_shape.hpp"
#include "support/plan_inputs.hpp"

using namespace geom;
using namespace geom::test;

namespace {

using Rows = std::vector<std::int64_t>;

// A layer for each number of key heads, all with 24 query heads; 0: no attention.
ModelShape with_keys(const Rows& kv_heads) {
    ModelShape shape = model_of({0, 24, 1, 8, 16, 32});
    for (const std::int64_t keys : kv_heads)
        shape.layers.push_back(layer_of({1, 24, std::max<std::int64_t>(1, keys), 8, 16, 32}, shape.rows(), keys > 0));
    return shape;
}

TEST(ModelShape, a_group_is_of_query_heads_that_share_a_key_in_every_layer) {
    EXPECT_EQ(with_keys({4, 4}).group_size(), 6);
    EXPECT_EQ(with_keys({4, 4}).groups(), 4);
    EXPECT_EQ(with_keys({4, 6}).group_size(), 2) << "gcd of 6 and 4";
    EXPECT_EQ(with_keys({2, 3, 1}).group_size(), 4) << "gcd of 12, 8 and 24";
    EXPECT_EQ(with_keys({4, 24}).group_size(), 1);
    EXPECT_EQ(with_keys({0, 4, 0}).group_size(), 6) << "layers without attention do not count";
    EXPECT_EQ(with_keys({0}).group_size(), 1);
    EXPECT_EQ(with_keys({}).group_size(), 1);
}

TEST(ModelShape, the_key_of_a_group_is_the_one_that_each_of_its_heads_uses) {
    const ModelShape shape = with_keys({4, 6, 2, 1, 12});
    ASSERT_EQ(shape.group_size(), 2);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::int64_t head = 0; head < shape.heads; ++head) {
            const std::int64_t key = head / (shape.heads / shape.at(row).kv_heads);
            EXPECT_EQ(shape.kv_head(row, head / shape.group_size()), key) << "row " << row << " head " << head;
        }
    }
}

TEST(ModelShape, rows_with_attention_and_their_longest_head) {
    ModelShape shape = with_keys({4, 0, 4, 0});
    EXPECT_EQ(shape.attention_rows(), (Rows{0, 2}));
    EXPECT_EQ(shape.all_rows(), (Rows{0, 1, 2, 3}));
    shape.layers[2].head_dim = 12;
    shape.layers[3].head_dim = 256;  // means nothing without attention
    EXPECT_EQ(shape.head_dim(), 12);
    EXPECT_EQ(with_keys({0}).head_dim(), 0);
    for (LayerShape& layer : shape.layers) layer.number += 20;
    EXPECT_EQ(shape.numbers({1, 3}), (std::vector<std::int32_t>{21, 23}));
}

TEST(ModelShape, head_blocks_are_of_the_widest_type_of_queries_and_keys) {
    ModelShape shape = with_keys({4, 4, 0});
    const auto q_of = [&](std::size_t row) -> WeightShape& { return shape.layers[row].weights[0]; };
    EXPECT_EQ(shape.operator_dtype(), DType::bf16);
    shape.layers[0].weights[2].dtype = DType::f64;
    EXPECT_EQ(shape.operator_dtype(), DType::bf16) << "values do not count";
    q_of(1).dtype = DType::f16;
    EXPECT_EQ(shape.operator_dtype(), DType::f32) << "f16 does not fit bf16, nor the other way round";
    q_of(1).dtype = DType::f8_e4m3;
    EXPECT_EQ(shape.operator_dtype(), DType::f32) << "f8 has scales";
    shape.layers[0].weights[1].dtype = DType::f64;
    EXPECT_EQ(shape.operator_dtype(), DType::f64) << "whichever comes first";
}

TEST(ModelShape, weights_are_found_by_expert_and_family) {
    const LayerShape layer = layer_of({1, 24, 4, 8, 16, 32}, 0, true, 3);
    EXPECT_EQ(layer.find(WeightFamily::k_proj)->rows, 32);
    EXPECT_EQ(layer.find(WeightFamily::down_proj, 2)->expert, 2);
    EXPECT_FALSE(layer.has(WeightFamily::up_proj)) << "of the experts alone";
    EXPECT_FALSE(layer.has(WeightFamily::up_proj, 3));
    EXPECT_FALSE(layer.has(WeightFamily::k_proj, 0));
    EXPECT_EQ(layer.find(WeightFamily::o_proj, 0), nullptr);
    EXPECT_FALSE(LayerShape().has(WeightFamily::q_proj));
}

TEST(ModelShape, f8_counts_a_byte_stored_and_four_in_memory) {
    const WeightShape f8{WeightFamily::q_proj, -1, 3, 5, DType::f8_e5m2},
        bf16{WeightFamily::q_proj, -1, 3, 5, DType::bf16};
    EXPECT_EQ(f8.bytes(), 15);
    EXPECT_EQ(f8.memory_bytes(), 60);
    EXPECT_EQ(bf16.bytes(), 30);
    EXPECT_EQ(bf16.memory_bytes(), 30);
}

TEST(ModelShape, of_a_checkpoint_has_the_weights_of_its_layers_in_order) {
    for (const char* model : {"synth:qwen3-32b", "synth:qwen3-30b-a3b", "synth:tiny"}) {
        const Checkpoint checkpoint = Checkpoint::open(model, "", "");
        const ModelShape shape = shape_of(checkpoint, {1, 3}, {5});
        EXPECT_EQ(shape.settings.top_k, 5);
        EXPECT_EQ(shape.model_layers, checkpoint.config().layers);
        ASSERT_EQ(shape.rows(), 2);
        for (const LayerShape& layer : shape.layers) {
            EXPECT_EQ(layer.number, &layer == &shape.layers[0] ? 1 : 2);
            EXPECT_TRUE(std::is_sorted(layer.weights.begin(), layer.weights.end(),
                                       [](const WeightShape& a, const WeightShape& b) {
                                           return std::pair(a.expert, a.family) < std::pair(b.expert, b.family);
                                       }));
            EXPECT_EQ(layer.has(WeightFamily::gate_proj), layer.experts == 0);
            EXPECT_EQ(layer.has(WeightFamily::down_proj, 127), layer.experts == 128);
            for (const WeightShape& weight : layer.weights) {
                const Weight stored = checkpoint.weight(weight.family, layer.number, weight.expert);
                EXPECT_EQ(weight.rows, stored.rows);
                EXPECT_EQ(weight.cols, stored.cols);
            }
        }
        EXPECT_EQ(shape.globals.size(), checkpoint.config().tied_head ? 1U : 2U);
    }
}

}  // namespace
