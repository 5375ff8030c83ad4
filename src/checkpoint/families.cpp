#include "checkpoint/families.hpp"

#include <fmt/format.h>

#include <array>

#include "checkpoint/json.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

using Experts = ModelFamily::Experts;

constexpr std::array<ModelFamily, 7> families = {{
    {.name = "qwen2", .qkv_bias = true},
    {.name = "qwen3", .qk_norm = true},
    {.name = "llama"},
    {.name = "mistral"},
    {.name = "phi3", .fused = true},
    {.name = "qwen3_moe", .qk_norm = true, .experts = Experts::qwen},
    {.name = "mixtral", .experts = Experts::mixtral},
}};

bool is_mlp(WeightFamily weight) {
    return weight == WeightFamily::gate_proj || weight == WeightFamily::up_proj || weight == WeightFamily::down_proj;
}

/// The name of an MLP matrix inside the module that holds it.
std::string_view mlp_name(const ModelFamily& family, WeightFamily weight, bool of_expert) {
    if (!of_expert || family.experts != Experts::mixtral) return name_of(weight);
    return weight == WeightFamily::gate_proj ? "w1" : weight == WeightFamily::up_proj ? "w3" : "w2";
}

std::string_view module_of_experts(const ModelFamily& family) {
    return family.experts == Experts::mixtral ? "block_sparse_moe" : "mlp";
}

/// phi3: qkv_proj is q over k over v, gate_up_proj is gate over up.
std::optional<WeightPlace> fused_place(const ModelConfig& config, WeightFamily weight, const std::string& prefix) {
    const std::int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
    const std::int64_t f = config.intermediate;
    const std::string qkv = prefix + "self_attn.qkv_proj.weight", gate_up = prefix + "mlp.gate_up_proj.weight";
    switch (weight) {
        case WeightFamily::q_proj:
            return WeightPlace{qkv, Range{0, q}};
        case WeightFamily::k_proj:
            return WeightPlace{qkv, Range{q, q + kv}};
        case WeightFamily::v_proj:
            return WeightPlace{qkv, Range{q + kv, q + 2 * kv}};
        case WeightFamily::gate_proj:
            return WeightPlace{gate_up, Range{0, f}};
        case WeightFamily::up_proj:
            return WeightPlace{gate_up, Range{f, 2 * f}};
        default:
            return std::nullopt;
    }
}

/// Names inside a layer that all families share.
std::string layer_name(const ModelFamily& family, WeightFamily weight) {
    switch (weight) {
        case WeightFamily::input_ln:
            return "input_layernorm.weight";
        case WeightFamily::post_attn_ln:
            return "post_attention_layernorm.weight";
        case WeightFamily::q_norm:
            return "self_attn.q_norm.weight";
        case WeightFamily::k_norm:
            return "self_attn.k_norm.weight";
        case WeightFamily::q_bias:
            return "self_attn.q_proj.bias";
        case WeightFamily::k_bias:
            return "self_attn.k_proj.bias";
        case WeightFamily::v_bias:
            return "self_attn.v_proj.bias";
        case WeightFamily::router:
            return fmt::format("{}.gate.weight", module_of_experts(family));
        default:
            return fmt::format("self_attn.{}.weight", name_of(weight));
    }
}

}  // namespace

std::span<const ModelFamily> model_families() noexcept { return families; }

std::string known_families() {
    std::string names;
    for (const ModelFamily& family : families) names += fmt::format("{}{}", names.empty() ? "" : ", ", family.name);
    return names;
}

const ModelFamily& model_family(std::string_view model_type) {
    for (const ModelFamily& family : families) {
        if (family.name == model_type) return family;
    }
    throw Error(
        ExitCode::input,
        fmt::format("model_type {} is not known; known are {}; --family NAME reads the weights as those of one of "
                    "these families, for measures that need weights only",
                    in_quotes(model_type), known_families()));
}

WeightPlace place_of(const ModelFamily& family, const ModelConfig& config, WeightFamily weight, std::int64_t layer,
                     std::int64_t expert) {
    if (weight == WeightFamily::embed_tokens) return {"model.embed_tokens.weight", std::nullopt};
    if (weight == WeightFamily::lm_head) return {"lm_head.weight", std::nullopt};
    if (weight == WeightFamily::final_norm) return {"model.norm.weight", std::nullopt};
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    if (is_mlp(weight) && expert >= 0) {
        return {fmt::format("{}{}.experts.{}.{}.weight", prefix, module_of_experts(family), expert,
                            mlp_name(family, weight, true)),
                std::nullopt};
    }
    if (family.fused) {
        if (auto place = fused_place(config, weight, prefix)) return *place;
    }
    if (is_mlp(weight)) return {fmt::format("{}mlp.{}.weight", prefix, mlp_name(family, weight, false)), std::nullopt};
    return {prefix + layer_name(family, weight), std::nullopt};
}

bool has_weight(const ModelFamily& family, const ModelConfig& config, WeightFamily weight, std::int64_t layer,
                std::int64_t expert) {
    if (expert >= 0 && !is_mlp(weight)) return false;
    if (weight == WeightFamily::embed_tokens || weight == WeightFamily::final_norm) return true;
    if (weight == WeightFamily::lm_head) return !config.tied_head;
    if (layer < 0 || layer >= config.layers) return false;
    const bool mixture = family.experts != Experts::none && config.layer_has_experts(layer);
    if (is_mlp(weight)) return mixture ? expert >= 0 && expert < config.moe.experts : expert < 0;
    switch (weight) {
        case WeightFamily::router:
            return mixture;
        case WeightFamily::q_norm:
        case WeightFamily::k_norm:
            return family.qk_norm;
        case WeightFamily::q_bias:
        case WeightFamily::k_bias:
        case WeightFamily::v_bias:
            return family.qkv_bias || (config.attention_bias && !family.fused);
        default:
            return true;
    }
}

MatrixShape shape_of(const ModelConfig& config, WeightFamily weight, std::int64_t expert) {
    const std::int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
    const std::int64_t f = expert >= 0 ? config.moe.intermediate : config.intermediate;
    switch (weight) {
        case WeightFamily::q_proj:
            return {q, config.hidden};
        case WeightFamily::k_proj:
        case WeightFamily::v_proj:
            return {kv, config.hidden};
        case WeightFamily::o_proj:
            return {config.hidden, q};
        case WeightFamily::gate_proj:
        case WeightFamily::up_proj:
            return {f, config.hidden};
        case WeightFamily::down_proj:
            return {config.hidden, f};
        case WeightFamily::q_norm:
        case WeightFamily::k_norm:
            return {1, config.head_dim};
        case WeightFamily::q_bias:
            return {1, q};
        case WeightFamily::k_bias:
        case WeightFamily::v_bias:
            return {1, kv};
        case WeightFamily::router:
            return {config.moe.experts, config.hidden};
        case WeightFamily::embed_tokens:
        case WeightFamily::lm_head:
            return {config.vocabulary, config.hidden};
        case WeightFamily::input_ln:
        case WeightFamily::post_attn_ln:
        case WeightFamily::final_norm:
            break;
    }
    return {1, config.hidden};
}

}  // namespace geom
