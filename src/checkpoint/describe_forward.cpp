#include "checkpoint/describe_forward.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace geom {

namespace {

using Type = RopeShape::Type;

constexpr std::array<std::pair<std::string_view, Type>, 4> rope_types = {
    {{"default", Type::standard}, {"linear", Type::linear}, {"llama3", Type::llama3}, {"yarn", Type::yarn}}};

const std::pair<std::string_view, Type>* find_rope_type(std::string_view name) {
    for (const auto& known : rope_types) {
        if (known.first == name) return &known;
    }
    return nullptr;
}

std::string refused(const ModelFamily& family, const ModelConfig& config) {
    if (config.model_type != family.name)
        return fmt::format("model_type \"{}\" is not known; --family is for the weights alone", config.model_type);
    if (find_rope_type(config.rope.type) == nullptr)
        return fmt::format("rope_type \"{}\"; known are default, linear, llama3 and yarn", config.rope.type);
    if (config.rope.type == "yarn" && (config.rope.original_max_positions == 0 || config.rope.factor == 0.0))
        return "rope_type \"yarn\" without the positions it stretches (original_max_position_embeddings, factor)";
    if (config.rope.partial != 1.0)
        return fmt::format("heads that are turned in part (partial_rotary_factor {})", config.rope.partial);
    if (config.head_dim % 2 != 0) return fmt::format("heads of odd length (head_dim {})", config.head_dim);
    if (config.activation != "silu") return fmt::format("hidden_act \"{}\"; known is silu", config.activation);
    if (config.mlp_bias) return "biases of the MLP (mlp_bias)";
    if (config.attention_bias && !family.qkv_bias) return "a bias of o_proj (attention_bias)";
    return {};
}

}  // namespace

ForwardShape forward_shape_of(const ModelFamily& family, const ModelConfig& config) {
    ForwardShape shape;
    shape.refused = refused(family, config);
    const RopeConfig& rope = config.rope;
    const auto* type = find_rope_type(rope.type);
    shape.rope = {type != nullptr ? type->second : Type::standard,
                  rope.theta,
                  rope.factor,
                  rope.low_freq_factor,
                  rope.high_freq_factor,
                  rope.beta_fast,
                  rope.beta_slow,
                  rope.truncate,
                  rope.attention_factor,
                  rope.original_max_positions};
    shape.norm_eps = config.norm_eps;
    shape.sliding_window = config.sliding_window;
    shape.experts_per_token = config.moe.experts_per_token;
    shape.renormalise = config.moe.renormalise;
    shape.begin_token = config.begin_token;
    return shape;
}

}  // namespace geom
