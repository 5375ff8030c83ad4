// config.json of a checkpoint, in both generations of its keys, as plain numbers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace geom {

/// Rotary position embedding. type is "default", "linear", "llama3", "yarn" or, unjudged, whatever else the file says
/// ("longrope", ...), which leaves the numbers below theta and partial as they are.
struct RopeConfig {
    std::string type = "default";
    double theta = 10000.0;
    double partial = 1.0;                     ///< share of head_dim that is rotated (partial_rotary_factor)
    double factor = 1.0;                      ///< linear, llama3, yarn
    double low_freq_factor = 1.0;             ///< llama3
    double high_freq_factor = 4.0;            ///< llama3
    double beta_fast = 32.0;                  ///< yarn
    double beta_slow = 1.0;                   ///< yarn
    bool truncate = true;                     ///< yarn
    double attention_factor = 1.0;            ///< yarn
    std::int64_t original_max_positions = 0;  ///< llama3, yarn
};

/// Mixture of experts; experts == 0 for a dense model.
struct MoeConfig {
    std::int64_t experts = 0;
    std::int64_t experts_per_token = 0;
    std::int64_t intermediate = 0;         ///< rows of one expert's gate and up
    bool renormalise = false;              ///< norm_topk_prob (mixtral: always)
    std::int64_t decoder_sparse_step = 1;  ///< layer l has experts when (l + 1) % step == 0 and it is not listed below
    std::vector<std::int64_t> dense_layers;  ///< mlp_only_layers
};

/// Symbols as in the documentation: L layers, H query heads, KV key/value heads, hd head_dim, D hidden, F intermediate.
struct ModelConfig {
    std::string model_type;
    std::int64_t layers = 0;        // L
    std::int64_t heads = 0;         // H
    std::int64_t kv_heads = 0;      // KV, divides H
    std::int64_t head_dim = 0;      // hd
    std::int64_t hidden = 0;        // D
    std::int64_t intermediate = 0;  // F
    std::int64_t vocabulary = 0;
    double norm_eps = 1e-6;
    bool tied_head = false;
    bool attention_bias = false;  ///< as the file says; qwen2 has q, k, v biases without saying so
    bool mlp_bias = false;
    std::string activation = "silu";  ///< hidden_act
    std::int64_t sliding_window = 0;  ///< tokens a query sees; 0: all
    RopeConfig rope;
    MoeConfig moe;
    std::int64_t begin_token = -1;      ///< -1: none
    std::int64_t scale_block_rows = 0;  ///< f8 checkpoints: rows and columns that share a scale; 0: not quantised
    std::int64_t scale_block_cols = 0;
    std::string quantisation;  ///< quantization_config's quant_method ("gptq", "fp8", ...); empty: none
    std::string text;          ///< the file as it was read

    std::int64_t group() const noexcept { return heads / kv_heads; }  // G
    bool layer_has_experts(std::int64_t layer) const;
};

/// Parses and checks config.json.
/// `shown` names the file in messages. Throws Error(input) on malformed JSON, duplicate keys, nesting beyond 64,
/// missing or non-positive sizes, sizes (and H * hd) beyond 2^31, H mod KV != 0, no head_dim and D mod H != 0.
/// A model_type this program does not know is none of its errors: families.hpp judges it.
ModelConfig parse_model_config(std::string_view text, const std::string& shown);

}  // namespace geom
