// Layers of a checkpoint as numbers.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "model/random_gauge.hpp"
#include "support/model_folder.hpp"

namespace geom::test {

inline double number_at(const std::string& bytes, DType dtype, std::size_t i) {
    std::uint16_t half = 0;
    float single = 0.0F;
    if (dtype == DType::f32) std::memcpy(&single, bytes.data() + 4 * i, 4);
    if (dtype != DType::f32) std::memcpy(&half, bytes.data() + 2 * i, 2);
    if (dtype == DType::bf16) single = bf16_to_f32(half);
    if (dtype == DType::f16) single = f16_to_f32(half);
    return double{single};
}

/// Of bf16, f16 or f32.
inline LayerTensors layer_of(const Checkpoint& checkpoint, std::int64_t layer) {
    const ModelConfig& config = checkpoint.config();
    LayerTensors out{config.heads, config.kv_heads, config.head_dim, config.hidden, config.intermediate, {}};
    for (int i = 0; i < static_cast<int>(WeightFamily::router); ++i) {
        const auto family = static_cast<WeightFamily>(i);
        if (!checkpoint.has(family, layer)) continue;
        const Weight weight = checkpoint.weight(family, layer);
        const std::string bytes = stored_bytes(checkpoint, weight);
        std::vector<double>& numbers = out.of[family];
        for (std::int64_t j = 0; j < weight.rows * weight.cols; ++j)
            numbers.push_back(number_at(bytes, weight.dtype, static_cast<std::size_t>(j)));
    }
    return out;
}

}  // namespace geom::test
