// What a forward pass is told of a model, and rotations against those of another implementation (transformers 5.24,
// modeling_rope_utils, float32).
#include "core/forward_shape.hpp"

#include <gtest/gtest.h>

#include "checkpoint/describe_forward.hpp"
#include "support/error_of.hpp"

namespace geom {
namespace {

ModelConfig parsed(const std::string& family, const std::string& more) {
    return parse_model_config(R"({"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32,
        "intermediate_size": 8, "vocab_size": 8, "model_type": ")" +
                                  family + "\"" + more + "}",
                              "config.json");
}

ForwardShape shape_of(const std::string& family, const std::string& more) {
    return forward_shape_of(model_family(family), parsed(family, more));
}

void expect_rotation(const std::string& parameters, const std::vector<float>& frequencies, double scale) {
    const ForwardShape shape = shape_of("qwen3", ", \"rope_parameters\": {" + parameters + "}");
    EXPECT_EQ(shape.refused, "");
    const Rotation rotation = rotation_of(shape.rope, 16);
    ASSERT_EQ(rotation.frequencies.size(), frequencies.size());
    for (std::size_t i = 0; i < frequencies.size(); ++i)
        EXPECT_NEAR(rotation.frequencies[i] / frequencies[i], 1.0, 3e-7) << parameters << " " << i;
    EXPECT_NEAR(rotation.scale, scale, 1e-7) << parameters;
}

TEST(ForwardShape, rotations_are_stretched_as_the_config_says) {
    expect_rotation(R"("rope_type": "default", "rope_theta": 10000.0)",
                    {1.0F, 0.316227764F, 0.1F, 0.0316227764F, 0.01F, 0.00316227764F, 0.001F, 0.000316227764F}, 1.0);
    expect_rotation(R"("rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0)",
                    {0.25F, 0.079056941F, 0.0250000004F, 0.00790569466F, 0.00249999994F, 0.000790569466F,
                     0.000250000012F, 7.90569466e-05F},
                    1.0);
    expect_rotation(R"("rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 8192)",
                    {1.0F, 0.193922758F, 0.0376060307F, 0.00729266508F, 0.000524846022F, 3.42810235e-05F,
                     6.64786967e-06F, 1.28917316e-06F},
                    1.0);
    expect_rotation(R"("rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
                       "original_max_position_embeddings": 32768)",
                    {1.0F, 0.177827939F, 0.0316227786F, 0.00421755994F, 0.000500000024F, 4.44569851e-05F,
                     7.90569356e-06F, 1.40585337e-06F},
                    1.138629436111989);
    expect_rotation(R"("rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                       "truncate": false, "original_max_position_embeddings": 4096)",
                    {1.0F, 0.225418001F, 0.0508132726F, 0.00679495931F, 0.000456483918F, 1.8188337e-05F,
                     4.09997847e-06F, 9.24208962e-07F},
                    1.3465735902799727);
    expect_rotation(R"("rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "beta_fast": 16.0, "beta_slow": 2.0,
                       "mscale": 1.0, "mscale_all_dim": 0.5, "original_max_position_embeddings": 4096)",
                    {1.0F, 0.316227764F, 0.100000001F, 0.0316227786F, 0.00674999924F, 0.00110679714F, 2.49999994e-05F,
                     7.90569447e-06F},
                    1.1557219901962608);
}

TEST(ForwardShape, yarn_without_a_factor_stretches_the_original_positions_to_those_there_are) {
    const std::string positions = R"(, "max_position_embeddings": 65536, "rope_scaling": {"type": "yarn")";
    EXPECT_EQ(shape_of("qwen2", positions + R"(, "original_max_position_embeddings": 16384})").rope.factor, 4.0);
    EXPECT_EQ(shape_of("qwen2", positions + R"(, "factor": 2.0})").rope.original_max_positions, 65536);
    EXPECT_EQ(shape_of("qwen2", positions + R"(, "factor": 2.0, "attention_factor": 1.5})").rope.attention_factor, 1.5);
    for (const char* lacking : {"", R"(, "original_max_position_embeddings": 16384)"}) {
        const ForwardShape shape =
            shape_of("qwen2", std::string(R"(, "rope_scaling": {"type": "yarn")") + lacking + "}");
        EXPECT_TRUE(test::says(shape.refused, "yarn", "original_max_position_embeddings", "factor")) << lacking;
    }
}

TEST(ForwardShape, what_the_pass_cannot_honour_is_refused_by_name) {
    EXPECT_EQ(shape_of("llama", "").refused, "");
    EXPECT_EQ(shape_of("qwen2", R"(, "attention_bias": true)").refused, "") << "of q, k and v";
    const std::pair<const char*, const char*> cases[] = {
        {R"(, "rope_scaling": {"type": "longrope"})", "rope_type \"longrope\""},
        {R"(, "rope_scaling": {"type": "dynamic", "factor": 2.0})", "rope_type \"dynamic\""},
        {R"(, "rope_parameters": {"full_attention": {"rope_theta": 1.0}})", "per layer type"},
        {R"(, "partial_rotary_factor": 0.5)", "partial_rotary_factor 0.5"},
        {R"(, "head_dim": 5)", "head_dim 5"},
        {R"(, "hidden_act": "gelu")", "hidden_act \"gelu\""},
        {R"(, "mlp_bias": true)", "mlp_bias"},
        {R"(, "attention_bias": true)", "o_proj"}};
    for (const auto& [config, reason] : cases) EXPECT_TRUE(test::says(shape_of("llama", config).refused, reason));
    const ForwardShape unknown = forward_shape_of(model_family("llama"), parsed("nemotron", ""));
    EXPECT_TRUE(test::says(unknown.refused, "model_type \"nemotron\"", "--family"));
}

TEST(ForwardShape, a_window_matters_to_texts_that_are_longer) {
    const ForwardShape shape = shape_of("mistral", R"(, "sliding_window": 100)");
    EXPECT_EQ(shape.refusal(100), "");
    EXPECT_TRUE(test::says(shape.refusal(101), "sliding_window", "101", "--max-tokens 100"));
    EXPECT_EQ(shape_of("qwen2", R"(, "sliding_window": 100, "use_sliding_window": false)").refusal(101), "");
}

TEST(ForwardShape, a_mixture_says_how_its_router_chooses) {
    const std::string experts = R"(, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8)";
    EXPECT_EQ(shape_of("qwen3_moe", experts).experts_per_token, 2);
    EXPECT_FALSE(shape_of("qwen3_moe", experts).renormalise);
    EXPECT_TRUE(shape_of("qwen3_moe", experts + R"(, "norm_topk_prob": true)").renormalise);
    EXPECT_TRUE(shape_of("mixtral", R"(, "num_local_experts": 4, "num_experts_per_tok": 2)").renormalise);
}

}  // namespace
}  // namespace geom
