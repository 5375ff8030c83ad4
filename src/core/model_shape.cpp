#include "core/model_shape.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace geom {

const WeightShape* LayerShape::find(WeightFamily family, std::int64_t expert) const noexcept {
    const auto found = std::lower_bound(weights.begin(), weights.end(), std::tuple(expert, family),
                                        [](const WeightShape& weight, const std::tuple<std::int64_t, WeightFamily>& w) {
                                            return std::tuple(weight.expert, weight.family) < w;
                                        });
    const bool there = found != weights.end() && found->expert == expert && found->family == family;
    return there ? &*found : nullptr;
}

std::vector<std::int64_t> ModelShape::all_rows() const {
    std::vector<std::int64_t> all(layers.size());
    std::iota(all.begin(), all.end(), 0);
    return all;
}

std::vector<std::int64_t> ModelShape::attention_rows() const {
    std::vector<std::int64_t> with;
    for (std::int64_t row = 0; row < rows(); ++row) {
        if (at(row).attention) with.push_back(row);
    }
    return with;
}

std::int64_t ModelShape::head_dim() const noexcept {
    std::int64_t longest = 0;
    for (const LayerShape& layer : layers) longest = std::max(longest, layer.attention ? layer.head_dim : 0);
    return longest;
}

std::int64_t ModelShape::group_size() const noexcept {
    std::int64_t size = 0;
    for (const LayerShape& layer : layers) {
        if (layer.attention) size = std::gcd(size, heads / layer.kv_heads);
    }
    return std::max<std::int64_t>(1, size);
}

DType ModelShape::operator_dtype() const noexcept {
    DType widest = DType::bf16;
    for (const LayerShape& layer : layers) {
        for (const WeightFamily side : {WeightFamily::q_proj, WeightFamily::k_proj}) {
            const WeightShape* weight = layer.attention ? layer.find(side) : nullptr;
            if (weight == nullptr || weight->dtype == DType::bf16 || widest == DType::f64) continue;
            widest = weight->dtype == DType::f64 ? DType::f64 : DType::f32;
        }
    }
    return widest;
}

std::vector<std::int32_t> ModelShape::numbers(const std::vector<std::int64_t>& chosen) const {
    std::vector<std::int32_t> numbers;
    for (const std::int64_t row : chosen) numbers.push_back(static_cast<std::int32_t>(at(row).number));
    return numbers;
}

}  // namespace geom
