// Layers of a checkpoint as numbers, and pairs of them as the measure `variation` hands them to its gauges.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "measures/layer_pair.hpp"
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

/// A layer's matrices in f32, with the norm weights that feed them.
class StoredLayer {
public:
    explicit StoredLayer(const LayerTensors& layer) : layer_(layer) {
        for (const auto& [family, numbers] : layer.of) stored_[family].assign(numbers.begin(), numbers.end());
    }

    FoldedMatrix matrix(WeightFamily family, bool folded) const {
        const auto found = stored_.find(family);
        if (found == stored_.end()) return {};
        const auto size = static_cast<std::int64_t>(found->second.size());
        const bool mlp = family == WeightFamily::gate_proj || family == WeightFamily::up_proj;
        const bool attention =
            family == WeightFamily::q_proj || family == WeightFamily::k_proj || family == WeightFamily::v_proj;
        std::int64_t cols = attention || mlp ? layer_.hidden : size;
        if (family == WeightFamily::o_proj) cols = layer_.heads * layer_.head_dim;
        if (family == WeightFamily::down_proj) cols = layer_.intermediate;
        const auto* data = reinterpret_cast<const std::byte*>(found->second.data());
        const WeightFamily norm = attention ? WeightFamily::input_ln : WeightFamily::post_attn_ln;
        return {{data, DType::f32, size / cols, cols},
                folded && (attention || mlp) ? layer_.of.at(norm).data() : nullptr};
    }

private:
    LayerTensors layer_;
    std::map<WeightFamily, std::vector<float>> stored_;
};

/// The layers have to outlive it.
inline LayerPair pair_of(const LayerTensors& shape, const StoredLayer& a, const StoredLayer& b, bool folded) {
    LayerPair pair;
    pair.shape = {shape.heads, shape.kv_heads, shape.head_dim, shape.hidden, shape.intermediate};
    for (std::size_t i = 0; i < variation_family_count; ++i) {
        const WeightFamily family = variation_families[i];
        pair.families[i] = {a.matrix(family, folded), b.matrix(family, folded)};
    }
    return pair;
}

}  // namespace geom::test
