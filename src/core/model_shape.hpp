// What a run's declarations and its plan may know of a model: sizes and types, layer by layer, and the options that
// change numbers. No file, no weight. checkpoint/describe_shape.hpp makes it.
//
//   layers   the decoder layers of this run, by row; row r is decoder layer layers[r].number
//   heads    query heads 0 .. H-1, the same in every layer; groups of them share a key block in every layer
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/forward_shape.hpp"
#include "core/range.hpp"
#include "core/residual_settings.hpp"
#include "core/weight_family.hpp"

namespace geom {

/// One matrix (norms and biases: one row) as stored.
struct WeightShape {
    WeightFamily family = WeightFamily::q_proj;
    std::int64_t expert = -1;  ///< of a mixture; -1: the layer's own
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    DType dtype = DType::bf16;

    std::int64_t bytes() const noexcept { return rows * cols * size_of(dtype); }
    /// Once in memory, where f8 is f32.
    std::int64_t memory_bytes() const noexcept { return rows * cols * size_of(memory_dtype(dtype)); }
};

struct LayerShape {
    std::int64_t number = 0;           ///< of the decoder layer
    bool attention = true;             ///< softmax attention; else heads, keys and their sizes mean nothing
    std::int64_t kv_heads = 0;         ///< KV, divides H
    std::int64_t head_dim = 0;         ///< hd
    std::int64_t experts = 0;          ///< of a mixture; 0: a dense MLP
    std::vector<WeightShape> weights;  ///< by expert, then by family

    /// Null where the layer has no such weight.
    const WeightShape* find(WeightFamily family, std::int64_t expert = -1) const noexcept;
    bool has(WeightFamily family, std::int64_t expert = -1) const noexcept { return find(family, expert) != nullptr; }
};

/// Options that change numbers.
struct MeasureSettings {
    std::int64_t top_k = 8;  ///< singular directions that are kept of each head; at most head_dim are
    ResidualSettings residual = {};
};

struct ModelShape {
    std::string family;             ///< "qwen3", ...
    std::int64_t model_layers = 0;  ///< L of the whole model
    std::int64_t heads = 0;         ///< H
    std::int64_t hidden = 0;        ///< D
    std::int64_t vocabulary = 0;
    std::vector<LayerShape> layers;    ///< of this run
    std::vector<WeightShape> globals;  ///< embed_tokens, and lm_head where it is a tensor of its own
    ForwardShape forward;
    MeasureSettings settings;

    std::int64_t rows() const noexcept { return static_cast<std::int64_t>(layers.size()); }
    const LayerShape& at(std::int64_t row) const { return layers[static_cast<std::size_t>(row)]; }

    std::vector<std::int64_t> all_rows() const;
    /// Rows with softmax attention, rising: the layers of gram.
    std::vector<std::int64_t> attention_rows() const;
    /// The longest of them; 0 without attention. Shorter heads count as padded with zero rows.
    std::int64_t head_dim() const noexcept;
    /// Query heads that share a key block in every layer: gcd of H/KV over the layers with attention.
    std::int64_t group_size() const noexcept;
    std::int64_t groups() const noexcept { return heads / group_size(); }
    /// The key head of a layer that the query heads of `group` use there.
    std::int64_t kv_head(std::int64_t row, std::int64_t group) const {
        return group * group_size() / (heads / at(row).kv_heads);
    }
    /// The widest of all W_Q and W_K, once in memory and f16 widened: head blocks of a run are of one type.
    DType operator_dtype() const noexcept;
    /// Decoder layers of these rows, as a scale's coordinates.
    std::vector<std::int32_t> numbers(const std::vector<std::int64_t>& rows) const;
};

}  // namespace geom
