// The shapes known by name, and the grammar of "SHAPE?option=value&option=value".
#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "checkpoint/synthetic.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t max_layers = 4096;
constexpr std::int64_t max_size = std::int64_t{1} << 20;  // of any row or column: no sum of bytes reaches 2^63

struct NamedShape {
    std::string_view name;
    std::string_view family;
    std::int64_t layers, heads, kv_heads, head_dim, hidden, intermediate, vocabulary;
    bool tied_head;
    double norm_eps;
    std::int64_t begin_token;
    std::int64_t max_positions;  // config.json only
};

// As in the config.json of the base models.
// clang-format off
constexpr std::array named_shapes{
    //         name             family        L    H    KV hd   D      F      V       tied   eps   begin   positions
    NamedShape{"qwen3-0.6b",    "qwen3",      28,  16,  8, 128, 1024,  3072,  151936, true,  1e-6, 151643, 40960},
    NamedShape{"qwen3-1.7b",    "qwen3",      28,  16,  8, 128, 2048,  6144,  151936, true,  1e-6, 151643, 40960},
    NamedShape{"qwen3-4b",      "qwen3",      36,  32,  8, 128, 2560,  9728,  151936, true,  1e-6, 151643, 40960},
    NamedShape{"qwen3-8b",      "qwen3",      36,  32,  8, 128, 4096,  12288, 151936, false, 1e-6, 151643, 40960},
    NamedShape{"qwen3-14b",     "qwen3",      40,  40,  8, 128, 5120,  17408, 151936, false, 1e-6, 151643, 40960},
    NamedShape{"qwen3-32b",     "qwen3",      64,  64,  8, 128, 5120,  25600, 151936, false, 1e-6, 151643, 40960},
    NamedShape{"qwen2.5-0.5b",  "qwen2",      24,  14,  2, 64,  896,   4864,  151936, true,  1e-6, 151643, 32768},
    NamedShape{"qwen2.5-1.5b",  "qwen2",      28,  12,  2, 128, 1536,  8960,  151936, true,  1e-6, 151643, 131072},
    NamedShape{"qwen2.5-3b",    "qwen2",      36,  16,  2, 128, 2048,  11008, 151936, true,  1e-6, 151643, 32768},
    NamedShape{"qwen2.5-7b",    "qwen2",      28,  28,  4, 128, 3584,  18944, 152064, false, 1e-6, 151643, 131072},
    NamedShape{"qwen2.5-72b",   "qwen2",      80,  64,  8, 128, 8192,  29568, 152064, false, 1e-5, 151643, 131072},
    NamedShape{"llama-3.1-8b",  "llama",      32,  32,  8, 128, 4096,  14336, 128256, false, 1e-5, 128000, 131072},
    NamedShape{"llama-3.1-70b", "llama",      80,  64,  8, 128, 8192,  28672, 128256, false, 1e-5, 128000, 131072},
    NamedShape{"llama-3.1-405b", "llama",     126, 128, 8, 128, 16384, 53248, 128256, false, 1e-5, 128000, 131072},
    NamedShape{"qwen3-30b-a3b", "qwen3_moe",  48,  32,  4, 128, 2048,  6144,  151936, false, 1e-6, 151643, 40960},
    NamedShape{"tiny",          "qwen3",      4,   4,   2, 16,  64,    128,   256,    true,  1e-6, -1,     4096},
};
// clang-format on

std::string known_shapes() {
    return "known shapes: " + known_synthetic_shapes() +
           " or numbers such as L28-H16-KV8-hd128-D1024-F3072-V151936 (V may be left out)";
}

[[noreturn]] void refuse(std::string_view text, const std::string& what, const std::string& known) {
    throw Error(ExitCode::usage, fmt::format("synth:{}: {}; {}", text, what, known));
}

/// The whole of `text` as a number.
template <typename Number>
std::optional<Number> number_in(std::string_view text) noexcept {
    Number value{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (;;) {
        const std::size_t at = text.find(separator);
        parts.push_back(text.substr(0, at));
        if (at == std::string_view::npos) return parts;
        text.remove_prefix(at + 1);
    }
}

/// The number after a name, "hd128" -> 128; nothing when the name is another one.
std::optional<std::string_view> after_name(std::string_view part, std::string_view name) noexcept {
    if (!part.starts_with(name)) return std::nullopt;
    part.remove_prefix(name.size());
    if (part.empty() || part.front() < '0' || part.front() > '9') return std::nullopt;
    return part;
}

/// "L28-H16-KV8-hd128-D1024-F3072[-V151936]", in any order. Nothing when a part is not of this form.
std::optional<NamedShape> numbered_shape(std::string_view shape) {
    NamedShape result{shape, "qwen3", 0, 0, 0, 0, 0, 0, 0, true, 1e-6, -1, 40960};
    struct Field {
        std::string_view name;
        std::int64_t* value;
    };
    const std::array<Field, 7> fields{{{"L", &result.layers},
                                       {"H", &result.heads},
                                       {"KV", &result.kv_heads},
                                       {"hd", &result.head_dim},
                                       {"D", &result.hidden},
                                       {"F", &result.intermediate},
                                       {"V", &result.vocabulary}}};
    for (const std::string_view part : split(shape, '-')) {
        bool taken = false;
        for (const Field& field : fields) {
            const auto digits = after_name(part, field.name);
            if (!digits || *field.value != 0) continue;
            const auto value = number_in<std::int64_t>(*digits);
            if (!value) return std::nullopt;
            if (*value < 1) refuse(shape, fmt::format("{} is not positive", part), known_shapes());
            *field.value = *value;
            taken = true;
        }
        if (!taken) return std::nullopt;
    }
    if (result.vocabulary == 0) result.vocabulary = 151936;
    for (const Field& field : fields)
        if (*field.value == 0) refuse(shape, fmt::format("{} is missing", field.name), known_shapes());
    return result;
}

void check_sizes(const NamedShape& shape, std::string_view text) {
    const auto complain = [&](const std::string& what) { refuse(text, what, known_shapes()); };
    if (shape.layers > max_layers) complain(fmt::format("{} layers are more than {}", shape.layers, max_layers));
    for (const std::int64_t size :
         {shape.heads, shape.kv_heads, shape.head_dim, shape.hidden, shape.intermediate, shape.vocabulary})
        if (size > max_size) complain(fmt::format("{} is more than {}", size, max_size));
    if (shape.heads * shape.head_dim > max_size)
        complain(fmt::format("H * hd = {} is more than {}", shape.heads * shape.head_dim, max_size));
    if (shape.heads % shape.kv_heads != 0)
        complain(fmt::format("KV = {} does not divide H = {}", shape.kv_heads, shape.heads));
    if (shape.head_dim % 2 != 0) complain(fmt::format("hd = {} is odd, rotary embedding needs pairs", shape.head_dim));
}

NamedShape find_shape(std::string_view name, std::string_view text) {
    for (const NamedShape& shape : named_shapes)
        if (shape.name == name) return shape;
    if (const auto shape = numbered_shape(name)) {
        check_sizes(*shape, text);
        return *shape;
    }
    refuse(text, fmt::format("no shape is called '{}'", name), known_shapes());
}

ModelConfig config_of(const NamedShape& shape) {
    ModelConfig config;
    config.model_type = shape.family;
    config.layers = shape.layers;
    config.heads = shape.heads;
    config.kv_heads = shape.kv_heads;
    config.head_dim = shape.head_dim;
    config.hidden = shape.hidden;
    config.intermediate = shape.intermediate;
    config.vocabulary = shape.vocabulary;
    config.norm_eps = shape.norm_eps;
    config.tied_head = shape.tied_head;
    config.begin_token = shape.begin_token;
    config.rope.theta = 1e6;
    if (shape.family == "llama") {
        config.rope.type = "llama3";
        config.rope.theta = 5e5;
        config.rope.factor = 8.0;
        config.rope.low_freq_factor = 1.0;
        config.rope.high_freq_factor = 4.0;
        config.rope.original_max_positions = 8192;
    }
    if (shape.family == "qwen3_moe") {
        config.moe.experts = 128;
        config.moe.experts_per_token = 8;
        config.moe.intermediate = 768;
        config.moe.renormalise = true;
    }
    return config;
}

std::string_view architecture_of(std::string_view family) noexcept {
    if (family == "qwen3") return "Qwen3ForCausalLM";
    if (family == "qwen2") return "Qwen2ForCausalLM";
    if (family == "llama") return "LlamaForCausalLM";
    return "Qwen3MoeForCausalLM";
}

std::string_view torch_name_of(DType dtype) noexcept {
    switch (dtype) {
        case DType::f16:
            return "float16";
        case DType::f32:
            return "float32";
        case DType::f64:
            return "float64";
        default:
            return "bfloat16";
    }
}

/// What the family's own config.json has beside the sizes.
void add_family_keys(Json& json, const ModelConfig& config) {
    if (config.model_type == "llama") {
        json["mlp_bias"] = false;
        json["rope_scaling"] = {{"rope_type", config.rope.type},
                                {"factor", config.rope.factor},
                                {"low_freq_factor", config.rope.low_freq_factor},
                                {"high_freq_factor", config.rope.high_freq_factor},
                                {"original_max_position_embeddings", config.rope.original_max_positions}};
        return;
    }
    json["rope_scaling"] = nullptr;
    json["sliding_window"] = nullptr;
    json["use_sliding_window"] = false;
    json["max_window_layers"] = config.layers;
    if (config.moe.experts == 0) return;
    json["num_experts"] = config.moe.experts;
    json["num_experts_per_tok"] = config.moe.experts_per_token;
    json["moe_intermediate_size"] = config.moe.intermediate;
    json["norm_topk_prob"] = config.moe.renormalise;
    json["decoder_sparse_step"] = config.moe.decoder_sparse_step;
    json["mlp_only_layers"] = Json::array();
}

std::string config_text(const ModelConfig& config, DType dtype, std::int64_t max_positions) {
    Json json;
    json["architectures"] = {architecture_of(config.model_type)};
    json["model_type"] = config.model_type;
    json["torch_dtype"] = torch_name_of(dtype);
    json["num_hidden_layers"] = config.layers;
    json["num_attention_heads"] = config.heads;
    json["num_key_value_heads"] = config.kv_heads;
    json["head_dim"] = config.head_dim;
    json["hidden_size"] = config.hidden;
    json["intermediate_size"] = config.intermediate;
    json["vocab_size"] = config.vocabulary;
    json["hidden_act"] = "silu";
    if (config.model_type != "qwen2") json["attention_bias"] = false;  // qwen2's biases are not an option
    json["attention_dropout"] = 0.0;
    json["initializer_range"] = 0.02;
    json["max_position_embeddings"] = max_positions;
    json["rms_norm_eps"] = config.norm_eps;
    json["rope_theta"] = config.rope.theta;
    json["tie_word_embeddings"] = config.tied_head;
    json["use_cache"] = true;
    json["bos_token_id"] = config.begin_token < 0 ? Json(nullptr) : Json(config.begin_token);
    json["eos_token_id"] = nullptr;
    json["pad_token_id"] = nullptr;
    json["transformers_version"] = "4.51.0";
    add_family_keys(json, config);
    return json.dump(2) + "\n";
}

std::optional<DType> synthetic_dtype(std::string_view name) noexcept {
    if (name == "bf16") return DType::bf16;
    if (name == "f16") return DType::f16;
    if (name == "f32") return DType::f32;
    if (name == "f64") return DType::f64;
    return std::nullopt;
}

/// Takes one "name=value" into the model. False when the name is not known or the value is out of its range.
bool apply_option(SyntheticModel& model, std::string_view name, std::string_view value) {
    const auto take = [](const auto& parsed, auto& target, bool in_range) {
        if (!parsed || !in_range) return false;
        target = *parsed;
        return true;
    };
    if (name == "seed") return take(number_in<std::uint64_t>(value), model.seed, true);
    if (name == "dtype") return take(synthetic_dtype(value), model.dtype, true);
    if (name == "layers") {
        const auto layers = number_in<std::int64_t>(value);
        return take(layers, model.config.layers, layers && *layers >= 1 && *layers <= max_layers);
    }
    if (name == "drift") {
        const auto drift = number_in<double>(value);
        return take(drift, model.drift, drift && *drift >= 0.0 && *drift <= 1.0);
    }
    if (name == "iid") {
        const auto iid = number_in<int>(value);
        return take(iid, model.iid, iid && (*iid == 0 || *iid == 1));
    }
    return false;
}

void apply_options(SyntheticModel& model, std::string_view options, std::string_view text) {
    const std::string known = fmt::format(
        "known options, separated by '&': seed=0..2^64-1 layers=1..{} dtype=bf16|f16|f32|f64 drift=0..1 iid=0|1",
        max_layers);
    std::vector<std::string_view> seen;
    for (const std::string_view option : split(options, '&')) {
        const std::size_t equals = option.find('=');
        const std::string_view name = option.substr(0, equals);
        const bool good = equals != std::string_view::npos && apply_option(model, name, option.substr(equals + 1));
        if (!good) refuse(text, fmt::format("'{}' is not an option with a value in its range", option), known);
        for (const std::string_view earlier : seen)
            if (earlier == name) refuse(text, fmt::format("'{}' is given twice", name), known);
        seen.push_back(name);
    }
}

}  // namespace

std::string known_synthetic_shapes() {
    std::string names;
    for (const NamedShape& shape : named_shapes) names.append(names.empty() ? "" : " ").append(shape.name);
    return names;
}

SyntheticModel parse_synthetic(std::string_view text) {
    const std::size_t question = text.find('?');
    const std::string_view name = text.substr(0, question);
    const NamedShape shape = find_shape(name, text);
    SyntheticModel model;
    model.shape = name;
    model.family = shape.family;
    model.config = config_of(shape);
    if (question != std::string_view::npos) apply_options(model, text.substr(question + 1), text);
    model.config.text = config_text(model.config, model.dtype, shape.max_positions);
    return model;
}

}  // namespace geom
