// The model families this program knows, and under which names each keeps its weights.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/catalogue.hpp"
#include "checkpoint/model_config.hpp"
#include "checkpoint/weight.hpp"
#include "core/range.hpp"

namespace geom {

/// Where a weight lives: a tensor's name and, for fused tensors, which of its rows.
struct WeightPlace {
    std::string tensor;
    std::optional<Range> rows;  ///< nothing: the whole tensor
};

/// How a family lays its weights out.
struct ModelFamily {
    std::string_view name;  ///< config.json's model_type
    bool qk_norm = false;   ///< q_norm and k_norm
    bool qkv_bias = false;  ///< q, k, v have biases whatever attention_bias says
    bool fused = false;     ///< qkv_proj and gate_up_proj (phi3)
    enum class Experts : std::uint8_t { none, qwen, mixtral } experts = Experts::none;
};

std::span<const ModelFamily> model_families() noexcept;

/// Throws Error(input) that names the model_type and those known.
const ModelFamily& model_family(std::string_view model_type);

/// "qwen2, qwen3, ...", for messages.
std::string known_families();

/// Where `family` keeps a weight. `layer` is ignored for embed_tokens, lm_head and final_norm; `expert` < 0 means the
/// dense MLP. Purely a matter of names: says nothing about whether the tensor is there.
WeightPlace place_of(const ModelFamily& family, const ModelConfig& config, WeightFamily weight, std::int64_t layer,
                     std::int64_t expert = -1);

/// True when a model of this family and config has that weight. False outside of its layers and experts, for lm_head
/// when it is tied, for the dense MLP of a layer that has experts, for anything but an MLP of an expert.
bool has_weight(const ModelFamily& family, const ModelConfig& config, WeightFamily weight, std::int64_t layer,
                std::int64_t expert = -1);

/// The rows and columns that `config` demands of a weight (norms and biases: one row).
struct MatrixShape {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
};
MatrixShape shape_of(const ModelConfig& config, WeightFamily weight, std::int64_t expert = -1);

}  // namespace geom
