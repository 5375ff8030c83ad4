#include "checkpoint/families.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/error_of.hpp"
#include "support/model_folder.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
using geom::test::StoredTensor;
using geom::test::TemporaryFolder;
using Family = WeightFamily;
using Json = nlohmann::json;

namespace {

const std::filesystem::path golden = std::filesystem::path(GEOM_TEST_DATA) / "golden";

ModelConfig sizes() {
    ModelConfig config;
    config.layers = 4;
    config.heads = 6;
    config.kv_heads = 2;
    config.head_dim = 8;
    config.hidden = 40;
    config.intermediate = 100;
    config.vocabulary = 1000;
    return config;
}

ModelConfig mixture() {
    ModelConfig config = sizes();
    config.moe.experts = 3;
    config.moe.intermediate = 20;
    config.moe.dense_layers = {1};
    return config;
}

std::string name_in(const char* family, Family weight, std::int64_t layer = 2, std::int64_t expert = -1) {
    return place_of(model_family(family), mixture(), weight, layer, expert).tensor;
}

std::vector<StoredTensor>::iterator named(std::vector<StoredTensor>& tensors, const std::string& name) {
    return std::find_if(tensors.begin(), tensors.end(), [&](const StoredTensor& t) { return t.name == name; });
}

/// Puts the rows of `parts` (names inside the layer) below each other into one tensor.
void fuse(std::vector<StoredTensor>& tensors, const std::string& prefix, const std::vector<std::string>& parts,
          const std::string& name) {
    StoredTensor all = {prefix + name, "", {0, 0}, ""};
    for (const std::string& part : parts) {
        const auto at = named(tensors, prefix + part);
        ASSERT_NE(at, tensors.end()) << prefix + part;
        all.dtype = at->dtype;
        all.shape = {all.shape[0] + at->shape[0], at->shape[1]};
        all.data += at->data;
        tensors.erase(at);
    }
    tensors.push_back(all);
}

/// Every weight of `twin` has the shape, type and bytes of the same weight of `model`.
void expect_same_weights(const Checkpoint& twin, const Checkpoint& model) {
    int compared = 0;
    const auto compare = [&](Family weight, std::int64_t layer, std::int64_t expert) {
        ASSERT_EQ(twin.has(weight, layer, expert), has_weight(twin.family(), twin.config(), weight, layer, expert));
        if (!twin.has(weight, layer, expert)) return;
        const Weight a = twin.weight(weight, layer, expert), b = model.weight(weight, layer, expert);
        ASSERT_EQ(a.rows, b.rows) << a.tensor;
        ASSERT_EQ(a.cols, b.cols) << a.tensor;
        ASSERT_EQ(a.dtype, b.dtype) << a.tensor;
        ASSERT_EQ(test::stored_bytes(twin, a), test::stored_bytes(model, b)) << a.tensor << " and " << b.tensor;
        ++compared;
    };
    for (int i = 0; i < weight_family_count; ++i) {
        for (std::int64_t layer = 0; layer < twin.config().layers; ++layer) {
            for (std::int64_t expert = -1; expert < twin.config().moe.experts; ++expert) {
                compare(static_cast<Family>(i), layer, expert);
            }
        }
    }
    EXPECT_GE(compared, 9 * twin.config().layers);
}

TEST(Families, those_of_the_specification_are_known) {
    for (const char* name : {"qwen2", "qwen3", "llama", "mistral", "phi3", "qwen3_moe", "mixtral"}) {
        EXPECT_EQ(model_family(name).name, name);
        EXPECT_NE(known_families().find(name), std::string::npos);
    }
    EXPECT_EQ(model_families().size(), 7U);
}

TEST(Families, another_one_is_named_together_with_those_known_and_the_way_out) {
    EXPECT_TRUE(says(error_of([] { model_family("gpt2"); }), "'gpt2'",
                     "qwen2, qwen3, llama, mistral, phi3, qwen3_moe, mixtral", "--family"));
}

TEST(Families, weights_go_by_their_names_in_the_result_file) {
    EXPECT_EQ(name_of(Family::q_proj), "q_proj");
    EXPECT_EQ(name_of(Family::post_attn_ln), "post_attn_ln");
    EXPECT_EQ(name_of(Family::v_bias), "v_bias");
    EXPECT_EQ(name_of(Family::router), "router");
    EXPECT_EQ(name_of(Family::final_norm), "final_norm");
}

TEST(Families, plain_families_keep_every_matrix_apart) {
    for (const char* family : {"qwen2", "qwen3", "llama", "mistral", "qwen3_moe", "mixtral"}) {
        EXPECT_EQ(name_in(family, Family::q_proj), "model.layers.2.self_attn.q_proj.weight");
        EXPECT_EQ(name_in(family, Family::o_proj), "model.layers.2.self_attn.o_proj.weight");
        EXPECT_EQ(name_in(family, Family::gate_proj), "model.layers.2.mlp.gate_proj.weight");
        EXPECT_EQ(name_in(family, Family::down_proj), "model.layers.2.mlp.down_proj.weight");
        EXPECT_EQ(name_in(family, Family::input_ln), "model.layers.2.input_layernorm.weight");
        EXPECT_EQ(name_in(family, Family::post_attn_ln), "model.layers.2.post_attention_layernorm.weight");
        EXPECT_EQ(name_in(family, Family::q_norm), "model.layers.2.self_attn.q_norm.weight");
        EXPECT_EQ(name_in(family, Family::k_bias), "model.layers.2.self_attn.k_proj.bias");
        EXPECT_EQ(name_in(family, Family::embed_tokens), "model.embed_tokens.weight");
        EXPECT_EQ(name_in(family, Family::lm_head), "lm_head.weight");
        EXPECT_EQ(name_in(family, Family::final_norm), "model.norm.weight");
        EXPECT_FALSE(place_of(model_family(family), sizes(), Family::k_proj, 0).rows);
    }
}

TEST(Families, phi3_fuses_q_over_k_over_v_and_gate_over_up) {
    const auto place = [](Family weight) { return place_of(model_family("phi3"), sizes(), weight, 3); };
    EXPECT_EQ(place(Family::q_proj).tensor, "model.layers.3.self_attn.qkv_proj.weight");
    EXPECT_EQ(place(Family::q_proj).rows, (Range{0, 48}));
    EXPECT_EQ(place(Family::k_proj).rows, (Range{48, 64}));
    EXPECT_EQ(place(Family::v_proj).rows, (Range{64, 80}));
    EXPECT_EQ(place(Family::gate_proj).tensor, "model.layers.3.mlp.gate_up_proj.weight");
    EXPECT_EQ(place(Family::gate_proj).rows, (Range{0, 100}));
    EXPECT_EQ(place(Family::up_proj).rows, (Range{100, 200}));
    EXPECT_EQ(place(Family::down_proj).tensor, "model.layers.3.mlp.down_proj.weight");
    EXPECT_FALSE(place(Family::o_proj).rows);
}

TEST(Families, mixtures_keep_experts_under_their_own_names) {
    EXPECT_EQ(name_in("qwen3_moe", Family::router), "model.layers.2.mlp.gate.weight");
    EXPECT_EQ(name_in("qwen3_moe", Family::gate_proj, 2, 7), "model.layers.2.mlp.experts.7.gate_proj.weight");
    EXPECT_EQ(name_in("qwen3_moe", Family::down_proj, 2, 0), "model.layers.2.mlp.experts.0.down_proj.weight");
    EXPECT_EQ(name_in("mixtral", Family::router), "model.layers.2.block_sparse_moe.gate.weight");
    EXPECT_EQ(name_in("mixtral", Family::gate_proj, 2, 7), "model.layers.2.block_sparse_moe.experts.7.w1.weight");
    EXPECT_EQ(name_in("mixtral", Family::up_proj, 2, 7), "model.layers.2.block_sparse_moe.experts.7.w3.weight");
    EXPECT_EQ(name_in("mixtral", Family::down_proj, 2, 7), "model.layers.2.block_sparse_moe.experts.7.w2.weight");
}

TEST(Families, shapes_follow_from_the_sizes_of_the_config) {
    const auto shape = [](Family weight, std::int64_t expert = -1) {
        const MatrixShape s = shape_of(mixture(), weight, expert);
        return std::pair(s.rows, s.cols);
    };
    using Shape = std::pair<std::int64_t, std::int64_t>;
    EXPECT_EQ(shape(Family::q_proj), Shape(48, 40));
    EXPECT_EQ(shape(Family::k_proj), Shape(16, 40));
    EXPECT_EQ(shape(Family::v_proj), Shape(16, 40));
    EXPECT_EQ(shape(Family::o_proj), Shape(40, 48));
    EXPECT_EQ(shape(Family::up_proj), Shape(100, 40));
    EXPECT_EQ(shape(Family::down_proj), Shape(40, 100));
    EXPECT_EQ(shape(Family::up_proj, 1), Shape(20, 40));
    EXPECT_EQ(shape(Family::down_proj, 1), Shape(40, 20));
    EXPECT_EQ(shape(Family::k_norm), Shape(1, 8));
    EXPECT_EQ(shape(Family::q_bias), Shape(1, 48));
    EXPECT_EQ(shape(Family::v_bias), Shape(1, 16));
    EXPECT_EQ(shape(Family::router), Shape(3, 40));
    EXPECT_EQ(shape(Family::lm_head), Shape(1000, 40));
    EXPECT_EQ(shape(Family::input_ln), Shape(1, 40));
    EXPECT_EQ(shape(Family::final_norm), Shape(1, 40));
}

TEST(Families, a_model_has_what_its_family_and_config_say) {
    ModelConfig config = sizes();
    const auto has = [&](const char* family, Family weight, std::int64_t layer = 0, std::int64_t expert = -1) {
        return has_weight(model_family(family), config, weight, layer, expert);
    };
    EXPECT_TRUE(has("qwen2", Family::q_bias));
    EXPECT_FALSE(has("qwen3", Family::q_bias));
    EXPECT_TRUE(has("qwen3", Family::q_norm));
    EXPECT_FALSE(has("llama", Family::q_norm));
    EXPECT_FALSE(has("llama", Family::router));
    EXPECT_TRUE(has("llama", Family::up_proj, 3));
    EXPECT_FALSE(has("llama", Family::up_proj, 4));
    EXPECT_FALSE(has("llama", Family::up_proj, -1));
    EXPECT_FALSE(has("llama", Family::up_proj, 0, 0));
    EXPECT_TRUE(has("llama", Family::lm_head));
    config.attention_bias = true;
    EXPECT_TRUE(has("llama", Family::v_bias));
    EXPECT_TRUE(has("qwen3", Family::v_bias));
    config.tied_head = true;
    EXPECT_FALSE(has("llama", Family::lm_head));
    EXPECT_TRUE(has("llama", Family::embed_tokens));
    config = mixture();
    EXPECT_TRUE(has("qwen3_moe", Family::router, 0));
    EXPECT_TRUE(has("qwen3_moe", Family::gate_proj, 0, 2));
    EXPECT_FALSE(has("qwen3_moe", Family::gate_proj, 0, 3));
    EXPECT_FALSE(has("qwen3_moe", Family::q_proj, 0, 2)) << "an expert has its MLP and nothing else";
    EXPECT_FALSE(has("qwen3_moe", Family::embed_tokens, -1, 2));
    EXPECT_FALSE(has("qwen3_moe", Family::gate_proj, 0));
    EXPECT_FALSE(has("qwen3_moe", Family::router, 1)) << "mlp_only_layers";
    EXPECT_TRUE(has("qwen3_moe", Family::gate_proj, 1));
}

TEST(Families, a_phi3_twin_made_by_fusing_has_the_same_weights) {
    auto tensors = test::read_tensors(golden / "llama-tiny");
    Json config = Json::parse(test::read_file(golden / "llama-tiny/config.json"));
    for (int layer = 0; layer < 5; ++layer) {
        const std::string prefix = fmt::format("model.layers.{}.", layer);
        fuse(tensors, prefix, {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"},
             "self_attn.qkv_proj.weight");
        fuse(tensors, prefix, {"mlp.gate_proj.weight", "mlp.up_proj.weight"}, "mlp.gate_up_proj.weight");
    }
    config["model_type"] = "phi3";
    config["rope_scaling"] = {{"type", "longrope"}, {"long_factor", {1.0}}, {"short_factor", {1.0}}};
    for (const std::size_t shards : {1U, 3U}) {
        TemporaryFolder folder;
        test::write_model(folder.path(), config, tensors, shards);
        const Checkpoint twin = Checkpoint::open(folder.path(), "", "");
        expect_same_weights(twin, Checkpoint::open(golden / "llama-tiny", "", ""));
        EXPECT_EQ(twin.weight(Family::v_proj, 1).first_row, 48 + 24);
        EXPECT_EQ(twin.config().rope.type, "longrope");
    }
}

TEST(Families, a_mistral_twin_has_the_same_weights) {
    Json config = Json::parse(test::read_file(golden / "llama-tiny/config.json"));
    config["model_type"] = "mistral";
    config["rope_scaling"] = nullptr;
    config["sliding_window"] = 4096;
    TemporaryFolder folder;
    test::write_model(folder.path(), config, test::read_tensors(golden / "llama-tiny"), 7);
    expect_same_weights(Checkpoint::open(folder.path(), "", ""), Checkpoint::open(golden / "llama-tiny", "", ""));
}

TEST(Families, a_mixtral_twin_made_by_renaming_has_the_same_weights) {
    std::vector<StoredTensor> tensors;
    const std::pair<std::string, std::string> names[] = {{".mlp.gate.", ".block_sparse_moe.gate."},
                                                         {".mlp.experts.", ".block_sparse_moe.experts."},
                                                         {".gate_proj.", ".w1."},
                                                         {".up_proj.", ".w3."},
                                                         {".down_proj.", ".w2."}};
    for (StoredTensor tensor : test::read_tensors(golden / "qwen3moe-tiny")) {
        if (tensor.name.find("_norm.") != std::string::npos) continue;
        for (const auto& [from, to] : names) {
            if (const auto at = tensor.name.find(from); at != std::string::npos)
                tensor.name.replace(at, from.size(), to);
        }
        tensors.push_back(tensor);
    }
    Json config = Json::parse(test::read_file(golden / "qwen3moe-tiny/config.json"));
    config["model_type"] = "mixtral";
    config["num_local_experts"] = config["num_experts"];
    config["intermediate_size"] = config["moe_intermediate_size"];
    for (const char* key :
         {"num_experts", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"}) {
        config.erase(key);
    }
    TemporaryFolder folder;
    test::write_model(folder.path(), config, tensors, 2);
    const Checkpoint twin = Checkpoint::open(folder.path(), "", "");
    expect_same_weights(twin, Checkpoint::open(golden / "qwen3moe-tiny", "", ""));
    EXPECT_TRUE(twin.config().moe.renormalise);
    EXPECT_FALSE(twin.has(Family::q_norm, 0));
}

}  // namespace
