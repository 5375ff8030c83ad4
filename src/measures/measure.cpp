#include "measures/measure.hpp"

#include <algorithm>
#include <array>

#include "measures/gram.hpp"
#include "measures/heads.hpp"

namespace geom {

std::span<const Measure> measures() {
    static const std::array all{gram_measure(), heads_measure()};
    return all;
}

const Measure* find_measure(std::string_view name) {
    const auto all = measures();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Measure& measure) { return measure.name == name; });
    return found == all.end() ? nullptr : &*found;
}

std::vector<Scale> shared_scales(const ModelConfig& config, Range layers, const MeasureSettings& settings) {
    std::vector<std::int32_t> numbers;
    for (std::int64_t l = layers.begin; l < layers.end; ++l) numbers.push_back(static_cast<std::int32_t>(l));
    const auto axis = [](std::string name, std::int64_t length, std::string long_name) {
        return Scale{"", std::move(name), length, {}, std::move(long_name), {}};
    };
    return {
        {"", "layer", layers.size(), {}, "decoder layer", numbers},
        {"", "layer_b", layers.size(), {}, "decoder layer, second of a pair", numbers},
        axis("head", config.heads, "query head"),
        axis("direction", std::min(settings.top_k, config.head_dim), "singular direction, largest first"),
        axis("hidden", config.hidden, "coordinate of the residual stream"),
        axis("rank", config.head_dim, "singular value or eigenvalue, largest first"),
        axis("sym", 2 * config.head_dim, "eigenvalue of g + g^T, largest magnitude first"),
    };
}

}  // namespace geom
