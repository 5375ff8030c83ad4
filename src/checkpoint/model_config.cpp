#include "checkpoint/model_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "checkpoint/families.hpp"
#include "checkpoint/json.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

constexpr std::int64_t largest_size = std::int64_t{1} << 31;

/// An object of config.json and the name it goes by in messages. A key whose value is null counts as absent.
class Section {
public:
    Section(const Json& object, std::string shown) : object_(object), shown_(std::move(shown)) {}

    [[noreturn]] void fail(const std::string& reason) const { throw Error(ExitCode::input, shown_ + ": " + reason); }

    const Json* find(const char* key) const {
        const auto at = object_.find(key);
        return at == object_.end() || at->is_null() ? nullptr : &*at;
    }

    std::optional<std::int64_t> integer(const char* key, std::int64_t smallest) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        return json_integer(*value, smallest, largest_size, fmt::format("{}: '{}'", shown_, key));
    }

    std::optional<double> positive(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        const double number = value->is_number() ? value->get<double>() : 0.0;
        if (!(number > 0.0)) {
            fail(fmt::format("'{}' is {}, but has to be a positive number", key,
                             value->is_number() ? value->dump() : std::string(kind_of(*value))));
        }
        return number;
    }

    bool flag(const char* key, bool otherwise) const {
        const Json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_boolean()) fail(fmt::format("'{}' is {}, but has to be true or false", key, kind_of(*value)));
        return value->get<bool>();
    }

    std::string text(const char* key, const std::string& otherwise) const {
        const Json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_string()) fail(fmt::format("'{}' is {}, but has to be a string", key, kind_of(*value)));
        return value->get<std::string>();
    }

    std::vector<std::int64_t> integers(const char* key, std::int64_t smallest) const {
        std::vector<std::int64_t> numbers;
        const Json* value = find(key);
        if (value == nullptr) return numbers;
        if (!value->is_array()) fail(fmt::format("'{}' is {}, but has to be an array", key, kind_of(*value)));
        for (const Json& entry : *value) {
            const std::string name = fmt::format("{}: entry {} of '{}'", shown_, numbers.size(), key);
            numbers.push_back(json_integer(entry, smallest, largest_size, name));
        }
        return numbers;
    }

    std::optional<Section> section(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_object()) fail(fmt::format("'{}' is {}, but has to be an object", key, kind_of(*value)));
        return Section(*value, fmt::format("{}: '{}'", shown_, key));
    }

    bool has_sections() const {
        return std::any_of(object_.begin(), object_.end(), [](const Json& value) { return value.is_object(); });
    }

private:
    const Json& object_;
    std::string shown_;
};

/// What a family takes for keys its config.json leaves out.
double default_norm_eps(std::string_view model_type) {
    return model_type == "phi3" || model_type == "mixtral" ? 1e-5 : 1e-6;
}

double default_theta(std::string_view model_type) { return model_type == "mixtral" ? 1e6 : 1e4; }

std::int64_t required(const Section& root, const char* key, const std::string& model_type) {
    if (const auto value = root.integer(key, 1)) return *value;
    const auto known = model_families();
    const bool is_known = std::any_of(known.begin(), known.end(), [&](const auto& f) { return f.name == model_type; });
    std::string why = "; it is damaged, or belongs to another kind of model";
    if (!is_known)
        why = fmt::format("; its model_type {} is not known, known are {}", in_quotes(model_type), known_families());
    root.fail(fmt::format("'{}' is missing{}", key, why));
}

std::int64_t head_dim_of(const Section& root, const ModelConfig& config) {
    if (const auto head_dim = root.integer("head_dim", 1)) return *head_dim;
    if (config.hidden % config.heads != 0) {
        root.fail(fmt::format("no 'head_dim', and hidden_size {} is not a multiple of num_attention_heads {}",
                              config.hidden, config.heads));
    }
    return config.hidden / config.heads;
}

void read_sizes(const Section& root, ModelConfig& config) {
    config.layers = required(root, "num_hidden_layers", config.model_type);
    config.heads = required(root, "num_attention_heads", config.model_type);
    config.hidden = required(root, "hidden_size", config.model_type);
    config.intermediate = required(root, "intermediate_size", config.model_type);
    config.vocabulary = required(root, "vocab_size", config.model_type);
    config.kv_heads = root.integer("num_key_value_heads", 1).value_or(config.heads);
    config.head_dim = head_dim_of(root, config);
    if (config.heads % config.kv_heads != 0) {
        root.fail(
            fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}; every key head has to "
                        "serve as many query heads as the next",
                        config.heads, config.kv_heads));
    }
    if (config.heads * config.head_dim > largest_size) {
        root.fail(fmt::format("num_attention_heads {} x head_dim {} is beyond 2^31", config.heads, config.head_dim));
    }
}

void read_llama3(const Section& detail, RopeConfig& rope) {
    rope.low_freq_factor = detail.positive("low_freq_factor").value_or(rope.low_freq_factor);
    rope.high_freq_factor = detail.positive("high_freq_factor").value_or(rope.high_freq_factor);
    if (rope.original_max_positions == 0) detail.fail("llama3 without 'original_max_position_embeddings'");
    if (rope.high_freq_factor <= rope.low_freq_factor) {
        detail.fail(fmt::format("high_freq_factor {} has to be above low_freq_factor {}", rope.high_freq_factor,
                                rope.low_freq_factor));
    }
}

/// Cosines and sines grow with the logarithm of the factor, unless the file says by how much. What is missing stays 0:
/// weights alone do not need it.
void read_yarn(const Section& root, const Section& detail, RopeConfig& rope) {
    const std::int64_t positions = root.integer("max_position_embeddings", 1).value_or(0);
    if (rope.original_max_positions == 0) rope.original_max_positions = positions;
    if (rope.original_max_positions == 0) return;
    if (!detail.positive("factor"))
        rope.factor = static_cast<double>(positions) / static_cast<double>(rope.original_max_positions);
    rope.beta_fast = detail.positive("beta_fast").value_or(rope.beta_fast);
    rope.beta_slow = detail.positive("beta_slow").value_or(rope.beta_slow);
    rope.truncate = detail.flag("truncate", true);
    const auto growth = [&](double share) {
        return rope.factor <= 1.0 ? 1.0 : 0.1 * share * std::log(rope.factor) + 1.0;
    };
    const auto share = detail.positive("mscale"), share_of_all = detail.positive("mscale_all_dim");
    const double usual = share && share_of_all ? growth(*share) / growth(*share_of_all) : growth(1.0);
    rope.attention_factor = detail.positive("attention_factor").value_or(usual);
}

/// rope_parameters (theta inside), or rope_theta and rope_scaling beside each other.
RopeConfig rope_of(const Section& root, const ModelConfig& config) {
    RopeConfig rope;
    rope.theta = root.positive("rope_theta").value_or(default_theta(config.model_type));
    rope.partial = root.positive("partial_rotary_factor").value_or(1.0);
    const char* key = root.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
    const auto detail = root.section(key);
    if (!detail) return rope;
    rope.theta = detail->positive("rope_theta").value_or(rope.theta);
    rope.partial = detail->positive("partial_rotary_factor").value_or(rope.partial);
    // A rotation for each kind of layer; weights alone do not need it.
    const bool per_layer =
        detail->find("rope_type") == nullptr && detail->find("type") == nullptr && detail->has_sections();
    rope.type = detail->text("rope_type", detail->text("type", per_layer ? "per layer type" : "default"));
    if (rope.type != "linear" && rope.type != "llama3" && rope.type != "yarn") return rope;
    rope.factor = detail->positive("factor").value_or(rope.factor);
    rope.original_max_positions = detail->integer("original_max_position_embeddings", 1).value_or(0);
    if (rope.type == "llama3") read_llama3(*detail, rope);
    if (rope.type == "yarn") read_yarn(root, *detail, rope);
    return rope;
}

MoeConfig moe_of(const Section& root, const ModelConfig& config) {
    MoeConfig moe;
    const auto experts = root.integer("num_experts", 0);
    const auto local = root.integer("num_local_experts", 0);
    if (experts && local && *experts != *local) {
        root.fail(fmt::format("num_experts {} and num_local_experts {} disagree", *experts, *local));
    }
    moe.experts = experts.value_or(local.value_or(0));
    if (moe.experts == 0) return moe;
    moe.experts_per_token = required(root, "num_experts_per_tok", config.model_type);
    if (moe.experts_per_token > moe.experts) {
        root.fail(
            fmt::format("num_experts_per_tok {} is more than the {} experts", moe.experts_per_token, moe.experts));
    }
    moe.intermediate = root.integer("moe_intermediate_size", 1).value_or(config.intermediate);
    moe.renormalise = root.flag("norm_topk_prob", false) || config.model_type == "mixtral";
    moe.decoder_sparse_step = root.integer("decoder_sparse_step", 1).value_or(1);
    moe.dense_layers = root.integers("mlp_only_layers", 0);
    // Layers that do not exist are harmless, and so are repetitions.
    auto& dense = moe.dense_layers;
    std::sort(dense.begin(), dense.end());
    dense.erase(std::unique(dense.begin(), dense.end()), dense.end());
    dense.erase(std::lower_bound(dense.begin(), dense.end(), config.layers), dense.end());
    return moe;
}

void read_quantisation(const Section& root, ModelConfig& config) {
    const auto quantisation = root.section("quantization_config");
    if (!quantisation) return;
    config.quantisation = quantisation->text("quant_method", "");
    if (quantisation->flag("load_in_4bit", false)) config.quantisation += ", 4 bits";
    const auto block = quantisation->integers("weight_block_size", 1);
    if (block.empty()) return;
    if (block.size() != 2) {
        quantisation->fail(
            fmt::format("'weight_block_size' has {} entries, but has to have 2: rows and columns", block.size()));
    }
    config.scale_block_rows = block[0];
    config.scale_block_cols = block[1];
}

}  // namespace

bool ModelConfig::layer_has_experts(std::int64_t layer) const {
    if (moe.experts == 0 || (layer + 1) % moe.decoder_sparse_step != 0) return false;
    return std::find(moe.dense_layers.begin(), moe.dense_layers.end(), layer) == moe.dense_layers.end();
}

ModelConfig parse_model_config(std::string_view text, const std::string& shown) {
    const Json object = parse_json(text, shown);
    if (!object.is_object()) {
        throw Error(ExitCode::input, fmt::format("{}: holds {}, but has to hold an object", shown, kind_of(object)));
    }
    const Section whole(object, shown);
    // A model that also sees or hears keeps what is said of its language model in a section of its own.
    const auto language = whole.find("num_hidden_layers") == nullptr ? whole.section("text_config") : std::nullopt;
    const Section root = language.value_or(whole);
    ModelConfig config;
    config.text = text;
    config.model_type = root.text("model_type", whole.text("model_type", ""));
    read_sizes(root, config);
    config.norm_eps = root.positive("rms_norm_eps").value_or(default_norm_eps(config.model_type));
    config.tied_head = root.flag("tie_word_embeddings", whole.flag("tie_word_embeddings", false));
    config.attention_bias = root.flag("attention_bias", false);
    config.mlp_bias = root.flag("mlp_bias", false);
    config.activation = root.text("hidden_act", "silu");
    if (root.flag("use_sliding_window", true)) config.sliding_window = root.integer("sliding_window", 0).value_or(0);
    config.begin_token = root.integer("bos_token_id", -1).value_or(-1);
    config.rope = rope_of(root, config);
    config.moe = moe_of(root, config);
    read_quantisation(whole, config);
    if (language) read_quantisation(root, config);
    return config;
}

}  // namespace geom
