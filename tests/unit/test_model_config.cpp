#include "checkpoint/model_config.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/error_of.hpp"
#include "support/safetensors_writer.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
using Json = nlohmann::json;

namespace {

const std::filesystem::path golden = std::filesystem::path(GEOM_TEST_DATA) / "golden";

Json small() {
    return {{"model_type", "llama"},    {"num_hidden_layers", 2}, {"num_attention_heads", 4},
            {"num_key_value_heads", 2}, {"hidden_size", 32},      {"head_dim", 8},
            {"intermediate_size", 64},  {"vocab_size", 100},      {"rms_norm_eps", 1e-5}};
}

ModelConfig parsed(const Json& json) { return parse_model_config(json.dump(), "config.json"); }

Json with(const std::string& key, const Json& value) {
    Json json = small();
    json[key] = value;
    return json;
}

std::string refusal(const std::string& text) {
    return error_of([&] { parse_model_config(text, "DIR/config.json"); });
}

TEST(ModelConfig, reads_the_old_generation_of_keys) {
    const std::string text = test::read_file(golden / "qwen3-tiny/config.json");
    const ModelConfig config = parse_model_config(text, "config.json");
    EXPECT_EQ(config.model_type, "qwen3");
    EXPECT_EQ(config.layers, 6);
    EXPECT_EQ(config.heads, 8);
    EXPECT_EQ(config.kv_heads, 2);
    EXPECT_EQ(config.group(), 4);
    EXPECT_EQ(config.head_dim, 16);  // and not 96 / 8
    EXPECT_EQ(config.hidden, 96);
    EXPECT_EQ(config.intermediate, 256);
    EXPECT_EQ(config.vocabulary, 1024);
    EXPECT_EQ(config.norm_eps, 1e-6);
    EXPECT_TRUE(config.tied_head);
    EXPECT_FALSE(config.attention_bias);
    EXPECT_EQ(config.rope.type, "default");
    EXPECT_EQ(config.rope.theta, 1e6);
    EXPECT_EQ(config.begin_token, -1);
    EXPECT_EQ(config.sliding_window, 0);
    EXPECT_EQ(config.moe.experts, 0);
    EXPECT_EQ(config.text, text);
}

TEST(ModelConfig, reads_the_new_generation_of_keys_and_derives_head_dim) {
    const ModelConfig config = parse_model_config(test::read_file(golden / "qwen2-tiny/config.json"), "config.json");
    EXPECT_EQ(config.head_dim, 16);
    EXPECT_EQ(config.rope.theta, 1e6);
    EXPECT_EQ(config.rope.type, "default");
    EXPECT_FALSE(config.tied_head);
}

TEST(ModelConfig, reads_llama3_rope_in_both_generations_alike) {
    Json json = Json::parse(test::read_file(golden / "llama-tiny/config.json"));
    const ModelConfig config = parsed(json);
    json["rope_parameters"] = json["rope_scaling"];
    json["rope_parameters"]["rope_theta"] = json["rope_theta"];
    json.erase("rope_scaling");
    json.erase("rope_theta");
    for (const ModelConfig& c : {config, parsed(json)}) {
        EXPECT_EQ(c.rope.type, "llama3");
        EXPECT_EQ(c.rope.theta, 500000.0);
        EXPECT_EQ(c.rope.factor, 8.0);
        EXPECT_EQ(c.rope.low_freq_factor, 1.0);
        EXPECT_EQ(c.rope.high_freq_factor, 4.0);
        EXPECT_EQ(c.rope.original_max_positions, 64);
        EXPECT_EQ(c.begin_token, 1);
        EXPECT_EQ(c.norm_eps, 1e-5);
    }
}

TEST(ModelConfig, reads_a_mixture) {
    const ModelConfig config = parse_model_config(test::read_file(golden / "qwen3moe-tiny/config.json"), "config.json");
    EXPECT_EQ(config.moe.experts, 4);
    EXPECT_EQ(config.moe.experts_per_token, 2);
    EXPECT_EQ(config.moe.intermediate, 32);
    EXPECT_EQ(config.intermediate, 96);
    EXPECT_TRUE(config.moe.renormalise);
    for (std::int64_t layer = 0; layer < 3; ++layer) EXPECT_TRUE(config.layer_has_experts(layer));
}

TEST(ModelConfig, mixtral_counts_local_experts_and_always_renormalises) {
    Json json = with("num_local_experts", 8);
    json["num_experts_per_tok"] = 2;
    EXPECT_FALSE(parsed(json).moe.renormalise);
    json["model_type"] = "mixtral";
    EXPECT_EQ(parsed(json).moe.experts, 8);
    EXPECT_EQ(parsed(json).moe.intermediate, 64);
    EXPECT_TRUE(parsed(json).moe.renormalise);
    json["num_experts"] = 4;
    EXPECT_TRUE(says(refusal(json.dump()), "num_experts 4 and num_local_experts 8 disagree"));
}

TEST(ModelConfig, experts_stand_at_every_step_but_in_the_listed_layers) {
    Json json = with("num_experts", 4);
    json["num_hidden_layers"] = 6;
    json["num_experts_per_tok"] = 2;
    json["decoder_sparse_step"] = 2;
    json["mlp_only_layers"] = {3, 3, 77};
    const ModelConfig config = parsed(json);
    std::vector<bool> has;
    for (std::int64_t layer = 0; layer < 6; ++layer) has.push_back(config.layer_has_experts(layer));
    EXPECT_EQ(has, (std::vector<bool>{false, true, false, false, false, true}));
    EXPECT_EQ(config.moe.dense_layers, (std::vector<std::int64_t>{3}));
}

TEST(ModelConfig, keeps_the_name_of_a_rope_it_does_not_know) {
    const Json longrope = {{"type", "longrope"}, {"long_factor", {1.0, 2.0}}, {"short_factor", {1.0, 1.0}}};
    EXPECT_EQ(parsed(with("rope_scaling", longrope)).rope.type, "longrope");
    EXPECT_EQ(parsed(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}})).rope.type, "yarn");
    EXPECT_EQ(parsed(with("rope_scaling", {{"type", "linear"}, {"factor", 2}})).rope.type, "linear");
    EXPECT_EQ(parsed(with("rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}})).rope.type, "per layer type");
    EXPECT_EQ(parsed(with("partial_rotary_factor", 0.75)).rope.partial, 0.75);
}

TEST(ModelConfig, reads_what_a_forward_pass_has_to_know) {
    Json json = with("sliding_window", 4096);
    json["attention_bias"] = true;
    json["mlp_bias"] = true;
    json["hidden_act"] = "gelu";
    EXPECT_EQ(parsed(json).sliding_window, 4096);
    EXPECT_TRUE(parsed(json).attention_bias);
    EXPECT_TRUE(parsed(json).mlp_bias);
    EXPECT_EQ(parsed(json).activation, "gelu");
    json["use_sliding_window"] = false;
    EXPECT_EQ(parsed(json).sliding_window, 0);
}

TEST(ModelConfig, reads_the_block_size_of_f8_scales) {
    const ModelConfig config =
        parsed(with("quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {128, 64}}}));
    EXPECT_EQ(config.scale_block_rows, 128);
    EXPECT_EQ(config.scale_block_cols, 64);
    EXPECT_EQ(parsed(with("quantization_config", {{"weight_block_size", nullptr}})).scale_block_rows, 0);
    EXPECT_TRUE(says(refusal(with("quantization_config", {{"weight_block_size", {128}}}).dump()), "has 1 entries"));
}

TEST(ModelConfig, takes_null_for_absent) {
    Json json = small();
    for (const char* key : {"num_key_value_heads", "head_dim", "rope_scaling", "bos_token_id", "sliding_window",
                            "rms_norm_eps", "quantization_config", "num_experts", "tie_word_embeddings"}) {
        json[key] = nullptr;
    }
    const ModelConfig config = parsed(json);
    EXPECT_EQ(config.kv_heads, 4);
    EXPECT_EQ(config.head_dim, 8);
    EXPECT_EQ(config.norm_eps, 1e-6);
}

TEST(ModelConfig, names_every_size_that_is_missing_or_out_of_range) {
    for (const char* key :
         {"num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "vocab_size"}) {
        Json without = small();
        without.erase(key);
        EXPECT_TRUE(says(refusal(without.dump()), "DIR/config.json", key, "missing"));
    }
    for (const char* key : {"num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
                            "hidden_size", "intermediate_size", "vocab_size"}) {
        for (const Json& wrong : {Json(0), Json(-1), Json(2147483649), Json(9223372036854775807), Json(1.5), Json("8"),
                                  Json(18446744073709551615U), Json(Json::array()), Json(true)}) {
            EXPECT_TRUE(says(refusal(with(key, wrong).dump()), "DIR/config.json", key));
        }
    }
}

TEST(ModelConfig, says_that_the_kind_of_model_is_not_known_where_its_sizes_go_by_other_names) {
    EXPECT_TRUE(says(refusal(R"({"model_type":"gpt2","n_layer":12})"), "'gpt2' is not known", "qwen3_moe"));
}

TEST(ModelConfig, refuses_heads_that_do_not_divide) {
    EXPECT_TRUE(says(refusal(with("num_key_value_heads", 3).dump()),
                     "num_attention_heads 4 is not a multiple of num_key_value_heads 3"));
    Json json = with("hidden_size", 34);
    json.erase("head_dim");
    EXPECT_TRUE(says(refusal(json.dump()), "hidden_size 34 is not a multiple of num_attention_heads 4"));
}

TEST(ModelConfig, refuses_products_of_sizes_that_would_overflow) {
    Json json = with("num_attention_heads", 2147483648);
    json["head_dim"] = 2147483648;
    EXPECT_TRUE(says(refusal(json.dump()), "beyond 2^31"));
}

TEST(ModelConfig, refuses_values_of_the_wrong_kind) {
    EXPECT_TRUE(says(refusal(with("model_type", 3).dump()), "'model_type' is a number"));
    EXPECT_TRUE(says(refusal(with("rms_norm_eps", 0).dump()), "'rms_norm_eps' is 0"));
    EXPECT_TRUE(says(refusal(with("rms_norm_eps", "tiny").dump()), "'rms_norm_eps' is a string"));
    EXPECT_TRUE(says(refusal(with("rope_theta", -1.0).dump()), "'rope_theta' is -1.0"));
    EXPECT_TRUE(says(refusal(with("rope_scaling", "llama3").dump()), "'rope_scaling' is a string"));
    EXPECT_TRUE(says(refusal(with("tie_word_embeddings", 1).dump()), "'tie_word_embeddings' is a number"));
    EXPECT_TRUE(says(refusal(with("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}).dump()),
                     "original_max_position_embeddings"));
    EXPECT_TRUE(says(refusal("[1]"), "holds an array"));
}

TEST(ModelConfig, refuses_json_that_is_not_strict_and_says_where) {
    EXPECT_TRUE(says(refusal("{\"a\":1,\n \"a\":2}"), "line 2, column 4", "'a' stands twice"));
    EXPECT_TRUE(says(refusal(R"({"x":{"b":1,"b":2}})"), "'b' stands twice"));
    EXPECT_TRUE(says(refusal(small().dump() + "x"), "line 1"));
    EXPECT_TRUE(says(refusal(small().dump() + "{}"), "line 1"));
    EXPECT_TRUE(says(refusal("\xef\xbb\xbf" + small().dump()), "byte-order mark"));
    EXPECT_TRUE(says(refusal(small().dump() + std::string("\0x", 2)), "NUL"));
    EXPECT_TRUE(says(refusal("{\"a\":\"\xff\"}"), "UTF-8"));
    EXPECT_TRUE(says(refusal(R"({"a":1e999})"), "does not fit a double"));
    EXPECT_TRUE(says(refusal(R"({"a":NaN})"), "line 1"));
    EXPECT_TRUE(says(refusal("{/**/}"), "line 1"));
    EXPECT_TRUE(says(refusal("{\"a\":1,}"), "line 1"));
    EXPECT_TRUE(says(refusal(""), "line 1, column 1"));
}

TEST(ModelConfig, refuses_deep_nesting_and_takes_64_levels) {
    const auto nested = [](int depth) {
        const auto n = static_cast<std::size_t>(depth - 1);
        std::string text = small().dump();
        text.back() = ',';
        return text + "\"deep\":" + std::string(n, '[') + std::string(n, ']') + "}";
    };
    EXPECT_EQ(parse_model_config(nested(64), "config.json").layers, 2);
    EXPECT_TRUE(says(refusal(nested(65)), "nesting beyond 64"));
    EXPECT_TRUE(says(refusal(std::string(1'000'000, '[')), "nesting beyond 64"));
}

TEST(ModelConfig, refuses_millions_of_values) {
    std::string text = "{\"a\":[0";
    for (int i = 0; i < 8'000'000; ++i) text += ",0";
    EXPECT_TRUE(says(refusal(text + "]}"), "more than 8000000 values"));
}

TEST(ModelConfig, never_repeats_a_long_or_unprintable_text_in_a_message) {
    const std::string message = refusal("{\"" + std::string(100'000, 'x') + "\x01");
    EXPECT_LT(message.size(), 500U);
    EXPECT_LT(refusal("{" + std::string(100'000, 'x')).size(), 500U);
    EXPECT_TRUE(says(refusal(R"({"\u001b[2Jx":1,"\u001b[2Jx":2})"), "'\\x1b[2Jx' stands twice"));
}

TEST(ModelConfig, cut_at_any_length_is_an_error) {
    for (const char* model : {"qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny"}) {
        const std::string text = test::read_file(golden / model / "config.json");
        const std::size_t end = text.find_last_not_of(" \n\r\t") + 1;
        for (std::size_t length = 0; length < end; ++length) {
            EXPECT_TRUE(says(refusal(text.substr(0, length)), "DIR/config.json")) << length;
        }
        EXPECT_NO_THROW(parse_model_config(text.substr(0, end), "config.json"));
    }
}

}  // namespace
