#include "checkpoint/checkpoint.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <ctime>

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
namespace fs = std::filesystem;

namespace {

const fs::path golden = fs::path(GEOM_TEST_DATA) / "golden";

Checkpoint opened(const fs::path& folder, const std::string& family = "") {
    return Checkpoint::open(folder.string(), "", family);
}

Json config_of(const char* model) { return Json::parse(test::read_file(golden / model / "config.json")); }

std::string refusal(const fs::path& folder) {
    return error_of([&] { opened(folder); });
}

template <class T>
std::string bytes(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string floats(const std::vector<float>& values) { return bytes(values); }

/// llama-tiny with another config or other tensors.
class Changed : public ::testing::Test {
protected:
    StoredTensor& tensor(const std::string& name) {
        for (StoredTensor& t : tensors_) {
            if (t.name == name) return t;
        }
        throw std::runtime_error("no " + name);
    }
    void erase(const std::string& name) {
        std::erase_if(tensors_, [&](const StoredTensor& t) { return t.name == name; });
    }
    const fs::path& write() {
        test::write_model(folder_.path(), config_, tensors_);
        return folder_.path();
    }

    TemporaryFolder folder_;
    Json config_ = config_of("llama-tiny");
    std::vector<StoredTensor> tensors_ = test::read_tensors(golden / "llama-tiny");
};

/// ... with q_proj of layer 0 (48 x 48) in f8, blocks of 32 x 20: scales [2, 3].
class Quantised : public Changed {
protected:
    Quantised() {
        tensor(name_).dtype = "F8_E4M3";
        tensor(name_).data = std::string(48 * 48, '\x38');
        config_["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {32, 20}}};
    }
    void add_scales(const std::string& dtype, const std::vector<std::int64_t>& shape, const std::string& data) {
        tensors_.push_back({name_ + "_scale_inv", dtype, shape, data});
    }
    Weight looked_up() { return opened(write()).weight(Family::q_proj, 0); }
    std::string lookup_refusal() {
        const Checkpoint checkpoint = opened(write());
        return error_of([&] { checkpoint.weight(Family::q_proj, 0); });
    }

    static std::string stored_scales(const Checkpoint& checkpoint, const ScaleSource& scales) {
        return test::read_bytes(checkpoint.files()[static_cast<std::size_t>(scales.at.file)], scales.at.offset,
                                scales.bytes());
    }

    const std::string name_ = "model.layers.0.self_attn.q_proj.weight";
};

TEST(Checkpoint, every_weight_of_the_golden_models_is_found_and_nothing_is_left_over) {
    for (const char* model : {"qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny"}) {
        const Checkpoint checkpoint = opened(golden / model);
        EXPECT_EQ(checkpoint.name(), model);
        EXPECT_EQ(checkpoint.revision(), "");
        std::int64_t elements = 0;
        for (int i = 0; i < weight_family_count; ++i) {
            const auto family = static_cast<Family>(i);
            const bool global = family >= Family::embed_tokens;
            for (std::int64_t layer = 0; layer < (global ? 1 : checkpoint.config().layers); ++layer) {
                for (std::int64_t expert = -1; expert < (global ? 0 : checkpoint.config().moe.experts); ++expert) {
                    const bool mlp = family >= Family::gate_proj && family <= Family::down_proj;
                    if ((expert >= 0 && !mlp) || !checkpoint.has(family, layer, expert)) continue;
                    const Weight weight = checkpoint.weight(family, layer, expert);
                    EXPECT_EQ(static_cast<std::int64_t>(test::stored_bytes(checkpoint, weight).size()), weight.bytes());
                    elements += weight.rows * weight.cols;
                }
            }
        }
        EXPECT_EQ(elements, checkpoint.parameters()) << model;
    }
}

TEST(Checkpoint, a_tied_head_is_no_weight_of_its_own) {
    EXPECT_FALSE(opened(golden / "qwen3-tiny").has(Family::lm_head, -1));
    EXPECT_TRUE(opened(golden / "llama-tiny").has(Family::lm_head, -1));
}

TEST(Checkpoint, a_weight_the_model_does_not_have_is_refused_by_name) {
    const Checkpoint checkpoint = opened(golden / "llama-tiny");
    EXPECT_FALSE(checkpoint.has(Family::q_norm, 0));
    EXPECT_FALSE(checkpoint.has(Family::q_proj, 5));
    EXPECT_TRUE(
        says(error_of([&] { checkpoint.weight(Family::q_norm, 0); }), "self_attn.q_norm.weight", "llama", "q_norm"));
    EXPECT_TRUE(says(error_of([&] { checkpoint.weight(Family::q_proj, 5); }), "model.layers.5."));
}

TEST_F(Changed, a_missing_tensor_is_named) {
    erase("model.layers.3.mlp.up_proj.weight");
    const Checkpoint checkpoint = opened(write());
    EXPECT_FALSE(checkpoint.has(Family::up_proj, 3));
    EXPECT_TRUE(says(error_of([&] { checkpoint.weight(Family::up_proj, 3); }), "'model.layers.3.mlp.up_proj.weight'",
                     "1 files"));
}

TEST_F(Changed, a_wrong_shape_is_told_with_both_shapes_and_where_they_come_from) {
    config_["num_attention_heads"] = 3;
    const Checkpoint checkpoint = opened(write());
    EXPECT_EQ(
        error_of([&] { checkpoint.weight(Family::q_proj, 0); }),
        (folder_ / "model.safetensors").string() +
            ": tensor 'model.layers.0.self_attn.q_proj.weight': shape [48, 48], but config.json says [24, 48] "
            "(num_attention_heads 3 x head_dim 8 rows, hidden_size 48 columns); the file and the config belong to "
            "different models, or the download is damaged");
    EXPECT_TRUE(says(error_of([&] { checkpoint.weight(Family::o_proj, 0); }), "[48, 48]", "[48, 24]"));
    EXPECT_NO_THROW(checkpoint.weight(Family::k_proj, 0));
}

TEST_F(Changed, shapes_of_another_number_of_dimensions_are_refused) {
    tensor("model.layers.0.input_layernorm.weight").shape = {1, 48};
    tensor("model.layers.0.self_attn.k_proj.weight").shape = {24 * 48};
    tensor("model.layers.0.self_attn.v_proj.weight").shape = {1, 24, 48};
    const Checkpoint checkpoint = opened(write());
    EXPECT_TRUE(
        says(error_of([&] { checkpoint.weight(Family::input_ln, 0); }), "shape [1, 48]", "says [48] (hidden_size 48)"));
    EXPECT_TRUE(says(error_of([&] { checkpoint.weight(Family::k_proj, 0); }), "shape [1152]", "says [24, 48]"));
    EXPECT_TRUE(says(error_of([&] { checkpoint.weight(Family::v_proj, 0); }), "shape [1, 24, 48]"));
}

TEST_F(Changed, integers_are_no_weights) {
    tensor("model.layers.0.self_attn.k_proj.weight").dtype = "I32";
    const Checkpoint checkpoint = opened(write());
    EXPECT_TRUE(says(error_of([&] { checkpoint.weight(Family::k_proj, 0); }), "k_proj", "dtype I32", "quantised"));
}

TEST_F(Changed, weights_that_are_integers_name_what_made_them) {
    config_["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
    StoredTensor& q = tensor("model.layers.0.self_attn.q_proj.weight");  // as bitsandbytes packs them
    q = {q.name, "U8", {48 * 48 / 2, 1}, std::string(48 * 48 / 2, 'x')};
    const Checkpoint checkpoint = opened(write());
    const std::string message = error_of([&] { checkpoint.weight(Family::q_proj, 0); });
    EXPECT_TRUE(says(message, "dtype U8")) << message;
    EXPECT_TRUE(says(message, "quantised with 'bitsandbytes, 4 bits'")) << message;
    EXPECT_FALSE(says(message, "damaged")) << message;
}

TEST_F(Changed, a_gptq_model_is_named_as_what_it_is) {
    config_["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
    for (StoredTensor& t : tensors_) {
        if (t.name.ends_with("_proj.weight")) t.name.replace(t.name.size() - 6, 6, "qweight");
    }
    const std::string message = refusal(write());
    EXPECT_TRUE(says(message, "integers in place of tensor 'model.layers.0.self_attn.q_proj.weight'")) << message;
    EXPECT_TRUE(says(message, "quantised with 'gptq'")) << message;
    EXPECT_FALSE(says(message, "--family")) << message;
}

/// The same numbers under other names.
class Renamed : public Changed, public ::testing::WithParamInterface<std::pair<const char*, const char*>> {};

TEST_P(Renamed, a_model_is_read_under_every_prefix_that_it_may_be_saved_with) {
    const auto& [model, head] = GetParam();
    for (StoredTensor& t : tensors_) t.name = t.name.starts_with("model.") ? model + t.name.substr(6) : head + t.name;
    const Checkpoint checkpoint = opened(write()), original = opened(golden / "llama-tiny");
    for (const Family family : {Family::q_proj, Family::down_proj, Family::embed_tokens, Family::final_norm}) {
        const Weight weight = checkpoint.weight(family, 3), same = original.weight(family, 3);
        EXPECT_TRUE(weight.tensor.starts_with(model)) << weight.tensor;
        EXPECT_EQ(test::stored_bytes(checkpoint, weight), test::stored_bytes(original, same));
    }
    EXPECT_EQ(checkpoint.has(Family::lm_head, -1), original.has(Family::lm_head, -1));
}

INSTANTIATE_TEST_SUITE_P(Prefixes, Renamed,
                         ::testing::Values(std::pair{"", ""}, std::pair{"model.language_model.", ""},
                                           std::pair{"language_model.model.", "language_model."}));

TEST_F(Changed, the_language_model_of_one_that_also_sees_is_read_by_its_own_section) {
    const Json language = config_;
    config_ = {{"model_type", "llava"}, {"text_config", language}, {"vision_config", {{"hidden_size", 7}}}};
    const Checkpoint checkpoint = opened(write());
    EXPECT_EQ(checkpoint.family().name, "llama");
    EXPECT_EQ(checkpoint.config().hidden, language["hidden_size"]);
    config_["text_config"]["model_type"] = "llava_text";
    EXPECT_TRUE(says(refusal(write()), "'llava_text' is not known"));
}

TEST(Checkpoint, a_folder_that_is_no_model_is_named_as_what_it_is) {
    const struct {
        std::vector<std::pair<const char*, const char*>> files;
        std::vector<const char*> mentions;
    } cases[] = {
        {{{"adapter_config.json", R"({"base_model_name_or_path": "Org/Base"})"}, {"adapter_model.safetensors", ""}},
         {"adapter (PEFT)", "'Org/Base'", "merge"}},
        {{{"adapter_config.json", "{"}}, {"adapter (PEFT)", "merge"}},
        {{{"m-Q4_K_M.gguf", ""}}, {"'m-Q4_K_M.gguf'", "GGUF files are not read", "original"}},
        {{{"m-Q4_K_M.gguf", ""}, {"config.json", nullptr}}, {"GGUF files are not read"}},
        {{{"refs/main", "x"}, {"snapshots/x/config.json", "{}"}}, {"hub cache", "snapshots/x", "ORG/NAME"}},
    };
    const std::string config = test::read_file(golden / "llama-tiny" / "config.json");
    for (const auto& one : cases) {
        const TemporaryFolder folder;
        for (const auto& [name, content] : one.files) {
            fs::create_directories((folder.path() / name).parent_path());
            test::write_file(folder.path() / name, content == nullptr ? config : content);
        }
        const std::string message = refusal(folder.path());
        for (const char* mention : one.mentions) EXPECT_TRUE(says(message, mention)) << message;
    }
}

TEST_F(Changed, more_layers_than_there_are_is_an_error_at_once) {
    config_["num_hidden_layers"] = 2147483648;
    EXPECT_TRUE(says(refusal(write()), "model.layers.5.self_attn.q_proj.weight", "2147483648 layers"));
}

TEST(Checkpoint, more_experts_than_there_are_is_an_error_at_once) {
    TemporaryFolder folder;
    Json config = config_of("qwen3moe-tiny");
    config["num_experts"] = 2147483648;
    test::write_model(folder.path(), config, test::read_tensors(golden / "qwen3moe-tiny"));
    EXPECT_TRUE(says(refusal(folder.path()), "mlp.experts.4.gate_proj.weight", "2147483648 experts"));
    config.erase("num_experts");
    test::write_model(folder.path(), config, test::read_tensors(golden / "qwen3moe-tiny"));
    EXPECT_TRUE(says(refusal(folder.path()), "qwen3_moe", "num_experts", "num_local_experts"));
}

TEST_F(Changed, an_unknown_kind_of_model_is_an_error_that_family_overrides) {
    config_["model_type"] = "brand-new";
    EXPECT_TRUE(says(refusal(write()), (folder_ / "config.json").string(), "'brand-new'", "qwen3_moe", "--family"));
    EXPECT_EQ(opened(folder_.path(), "mistral").family().name, "mistral");
    EXPECT_TRUE(says(error_of([&] { opened(folder_.path(), "gpt2"); }, ExitCode::usage), "--family 'gpt2'", "qwen2"));
    config_.erase("model_type");
    EXPECT_TRUE(says(refusal(write()), "model_type ''"));
    EXPECT_EQ(opened(folder_.path(), "llama").family().name, "llama");
}

TEST_F(Changed, family_decides_about_experts) {
    config_["num_experts"] = 8;
    config_["num_experts_per_tok"] = 2;
    EXPECT_EQ(opened(write()).config().moe.experts, 0);
}

TEST_F(Changed, attention_bias_adds_biases) {
    config_["attention_bias"] = true;
    for (int layer = 0; layer < 5; ++layer) {
        for (const auto& [name, n] : {std::pair("q", 48), std::pair("k", 24), std::pair("v", 24)}) {
            tensors_.push_back({fmt::format("model.layers.{}.self_attn.{}_proj.bias", layer, name),
                                "F32",
                                {n},
                                std::string(static_cast<std::size_t>(4 * n), '\0')});
        }
    }
    const Checkpoint checkpoint = opened(write());
    EXPECT_TRUE(checkpoint.has(Family::k_bias, 4));
    EXPECT_EQ(checkpoint.weight(Family::k_bias, 4).cols, 24);
    EXPECT_EQ(checkpoint.weight(Family::k_bias, 4).rows, 1);
}

TEST_F(Changed, a_config_that_is_no_file_or_leads_outside_is_refused) {
    TemporaryFolder elsewhere;
    const fs::path config = write() / "config.json";
    fs::rename(config, elsewhere / "config.json");
    fs::create_symlink(elsewhere / "config.json", config);
    EXPECT_TRUE(says(refusal(folder_.path()), config.string(), "outside"));
    fs::remove(config);
    ASSERT_EQ(::mkfifo(config.c_str(), 0600), 0);
    EXPECT_TRUE(says(refusal(folder_.path()), config.string(), "pipe"));
    fs::remove(config);
    fs::create_directory(config);
    EXPECT_TRUE(says(refusal(folder_.path()), config.string(), "is a folder"));
    fs::remove(config);
    test::write_file(config, "{");
    fs::resize_file(config, std::uintmax_t{1} << 40);
    EXPECT_TRUE(says(refusal(folder_.path()), config.string(), "1099511627776 bytes"));
}

TEST(Checkpoint, a_partial_snapshot_names_the_command_that_completes_it) {
    TemporaryFolder hub;
    const std::string commit(40, 'c');
    const fs::path model = hub / "models--org--tiny", snapshot = model / "snapshots" / commit;
    fs::create_directories(snapshot);
    fs::create_directories(model / "refs");
    test::write_file(model / "refs/main", commit);
    for (const auto& entry : fs::directory_iterator(golden / "qwen3-tiny")) {
        if (entry.path().filename() != "model-00003-of-00004.safetensors") fs::copy(entry.path(), snapshot);
    }
    EXPECT_TRUE(
        says(refusal(snapshot), "model-00003-of-00004.safetensors", "hf download org/tiny --revision " + commit));
    fs::copy(golden / "qwen3-tiny/model-00003-of-00004.safetensors", snapshot);
    EXPECT_EQ(opened(snapshot).commit(), commit);
}

TEST_F(Quantised, block_scales_come_with_the_weight) {
    add_scales("F32", {2, 3}, floats({1, 2, 3, 4, 5, 6}));
    const Weight weight = looked_up();
    EXPECT_EQ(weight.dtype, DType::f8_e4m3);
    EXPECT_EQ(weight.bytes(), 48 * 48);
    ASSERT_TRUE(weight.scales);
    EXPECT_EQ(weight.scales->tensor, name_ + "_scale_inv");
    EXPECT_EQ(weight.scales->dtype, DType::f32);
    EXPECT_EQ(weight.scales->rows, 2);
    EXPECT_EQ(weight.scales->cols, 3);
    EXPECT_EQ(weight.scales->block_rows, 32);
    EXPECT_EQ(weight.scales->block_cols, 20);
    const Checkpoint checkpoint = opened(folder_.path());
    EXPECT_EQ(stored_scales(checkpoint, *weight.scales), floats({1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(checkpoint.parameters(), opened(golden / "llama-tiny").parameters()) << "scales are no parameters";
    EXPECT_FALSE(checkpoint.weight(Family::k_proj, 0).scales);
}

TEST_F(Quantised, scales_may_be_bf16_and_there_may_be_one_for_all) {
    const std::string six = bytes<std::uint16_t>({0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0});
    add_scales("BF16", {2, 3}, six);
    const ScaleSource narrow = looked_up().scales.value();
    EXPECT_EQ(narrow.dtype, DType::bf16);
    EXPECT_EQ(stored_scales(opened(folder_.path()), narrow), six);
    for (const auto& shape : {std::vector<std::int64_t>{}, std::vector<std::int64_t>{1}}) {
        tensors_.pop_back();
        add_scales("F32", shape, floats({0.5F}));
        const ScaleSource single = looked_up().scales.value();
        EXPECT_EQ(single.bytes(), 4);
        EXPECT_EQ(single.block_rows, 48);
        EXPECT_EQ(single.block_cols, 48);
        EXPECT_EQ(stored_scales(opened(folder_.path()), single), floats({0.5F}));
    }
}

TEST_F(Quantised, parts_of_a_fused_tensor_share_its_scales) {
    TemporaryFolder folder;
    Json config = config_;
    config["model_type"] = "phi3";
    std::vector<StoredTensor> tensors;
    for (int layer = 0; layer < 5; ++layer) {
        const std::string name = fmt::format("model.layers.{}.self_attn.qkv_proj.weight", layer);
        tensors.push_back({name, "F8_E5M2", {96, 48}, std::string(96 * 48, '\x3c')});
        tensors.push_back({name + "_scale_inv", "F32", {3, 3}, floats({1, 2, 3, 4, 5, 6, 7, 8, 9})});
    }
    test::write_model(folder.path(), config, tensors);
    const Checkpoint checkpoint = opened(folder.path());
    const Weight q = checkpoint.weight(Family::q_proj, 1), k = checkpoint.weight(Family::k_proj, 1);
    EXPECT_EQ(k.first_row, 48);
    EXPECT_EQ(k.rows, 24);
    EXPECT_EQ(std::get<FileSource>(k.source).offset - std::get<FileSource>(q.source).offset, 48 * 48);
    EXPECT_EQ(k.scales->rows * k.scales->cols, 9) << "rows of the stored tensor, counted from its first";
    EXPECT_EQ(k.scales->at.offset, q.scales->at.offset);
}

TEST_F(Quantised, missing_scales_are_an_error) {
    EXPECT_TRUE(says(lookup_refusal(), "'" + name_ + "'", "F8_E4M3 without its scales", name_ + "_scale_inv"));
}

TEST_F(Quantised, scales_are_looked_up_without_being_read) {
    add_scales("F32", {2, 3}, floats({1, 2, 3, 4, NAN, 6}));
    const Checkpoint checkpoint = opened(write());
    fs::remove(folder_ / "model.safetensors");
    EXPECT_TRUE(checkpoint.weight(Family::q_proj, 0).scales) << "the reader sees what they are";
}

TEST_F(Quantised, scales_have_to_fit_the_blocks) {
    add_scales("F32", {3, 2}, floats({1, 2, 3, 4, 5, 6}));
    EXPECT_TRUE(says(lookup_refusal(), "shape [3, 2]", "[48, 48]", "[32, 20]", "[2, 3]"));
    tensors_.pop_back();
    add_scales("I32", {2, 3}, floats({1, 2, 3, 4, 5, 6}));
    EXPECT_TRUE(says(lookup_refusal(), "dtype I32", "F32 or BF16"));
    tensors_.pop_back();
    add_scales("F32", {2, 3}, floats({1, 2, 3, 4, 5, 6}));
    config_.erase("quantization_config");
    EXPECT_TRUE(says(lookup_refusal(), "weight_block_size"));
}

TEST(Checkpoint, a_synthetic_model_has_every_weight_of_its_family) {
    const Checkpoint checkpoint = Checkpoint::open("synth:tiny", "", "");
    EXPECT_EQ(checkpoint.name(), "synth:tiny");
    EXPECT_TRUE(checkpoint.files().empty());
    std::int64_t elements = 0;
    for (int i = 0; i < weight_family_count; ++i) {
        const auto family = static_cast<Family>(i);
        for (std::int64_t layer = 0; layer < (family >= Family::embed_tokens ? 1 : checkpoint.config().layers);
             ++layer) {
            if (!checkpoint.has(family, layer)) continue;
            const Weight weight = checkpoint.weight(family, layer);
            EXPECT_TRUE(std::holds_alternative<SyntheticSource>(weight.source));
            elements += weight.rows * weight.cols;
        }
    }
    EXPECT_EQ(elements, checkpoint.parameters());
    error_of([] { Checkpoint::open("synth:tiny", "main", ""); }, ExitCode::usage);
    error_of([] { Checkpoint::open("synth:no-such-shape", "", ""); }, ExitCode::usage);
}

/// Qwen3-32B in 64 sparse shards: opening it reads headers, and takes at most half a second of this process.
TEST(Checkpoint, a_sparse_checkpoint_of_64_shards_opens_within_half_a_second) {
    TemporaryFolder folder;
    const Json config = {{"model_type", "qwen3"},      {"num_hidden_layers", 64}, {"num_attention_heads", 64},
                         {"num_key_value_heads", 8},   {"head_dim", 128},         {"hidden_size", 5120},
                         {"intermediate_size", 25600}, {"vocab_size", 151936},    {"tie_word_embeddings", false}};
    test::write_file(folder / "config.json", config.dump());
    const ModelConfig sizes = parse_model_config(config.dump(), "config.json");
    std::string map;
    for (int shard = 0; shard < 64; ++shard) {
        const std::string file = fmt::format("model-{:05}-of-00064.safetensors", shard + 1);
        std::string header;
        std::int64_t end = 0;
        for (int i = 0; i < weight_family_count; ++i) {
            const auto family = static_cast<Family>(i);
            if (!has_weight(model_family("qwen3"), sizes, family, shard)) continue;
            if (family >= Family::embed_tokens && shard != 0) continue;
            const MatrixShape shape = shape_of(sizes, family);
            const std::string name = place_of(model_family("qwen3"), sizes, family, shard).tensor;
            const std::string dims =
                shape.rows == 1 ? std::to_string(shape.cols) : fmt::format("{},{}", shape.rows, shape.cols);
            const std::int64_t size = 2 * shape.rows * shape.cols;
            header += fmt::format(R"({}"{}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{},{}]}})",
                                  header.empty() ? "{" : ",", name, dims, end, end + size);
            map += fmt::format(R"({}"{}":"{}")", map.empty() ? "" : ",", name, file);
            end += size;
        }
        const std::string start = test::safetensors_file(header + "}", "");
        test::write_file(folder / file, start);
        fs::resize_file(folder / file, start.size() + static_cast<std::uintmax_t>(end));
    }
    test::write_file(folder / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");

    const std::clock_t before = std::clock();
    const Checkpoint checkpoint = opened(folder.path());
    const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    EXPECT_EQ(checkpoint.files().size(), 64U);
    EXPECT_EQ(checkpoint.parameters(), 32'762'123'264);
    EXPECT_EQ(checkpoint.weight(Family::down_proj, 63).cols, 25600);
    EXPECT_LE(seconds, 0.5);
    RecordProperty("open_seconds", std::to_string(seconds));
}

}  // namespace
