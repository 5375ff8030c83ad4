#include "checkpoint/synthetic.hpp"

#include <fmt/format.h>

#include <cmath>

#include "checkpoint/philox.hpp"

namespace geom {
namespace {

std::uint64_t fnv1a_64(std::string_view text) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
}

/// "model.layers.7.mlp.up_proj.weight" -> "model.layers.mlp.up_proj.weight".
std::string without_layer_number(const std::string& name, std::int64_t layer) {
    const std::string number = fmt::format("layers.{}.", layer);
    const std::size_t at = name.find(number);
    if (at == std::string::npos) return name;
    std::string base = name;
    return base.replace(at, number.size(), "layers.");
}

bool is_norm(WeightFamily family) noexcept {
    return family == WeightFamily::input_ln || family == WeightFamily::post_attn_ln || family == WeightFamily::q_norm ||
           family == WeightFamily::k_norm || family == WeightFamily::final_norm;
}

bool is_bias(WeightFamily family) noexcept {
    return family == WeightFamily::q_bias || family == WeightFamily::k_bias || family == WeightFamily::v_bias;
}

/// c, and the m that makes 2^29 <= c * 2^m < 2^30. Only operations that IEEE 754 rounds correctly: the same everywhere.
struct Scale {
    double c = 0.0;
    int exponent = 0;
};

Scale scale_of(std::int64_t hidden) noexcept {
    const double variance_of_s = 4.0 * 4294967295.0 / 3.0;
    const double c = std::sqrt(1.0 / (variance_of_s * static_cast<double>(hidden)));
    return {c, 29 - std::ilogb(c)};
}

}  // namespace

double SyntheticModel::drift_of(std::int64_t layer) const {
    if (layer < 0) return 0.0;
    if (iid) return 1.0;
    if (config.layers == 1) return 0.0;
    return drift * static_cast<double>(layer) / static_cast<double>(config.layers - 1);
}

double SyntheticModel::expected_cosine(std::int64_t layer, std::int64_t layer_b) const {
    if (layer == layer_b) return 1.0;
    return (1.0 - drift_of(layer)) * (1.0 - drift_of(layer_b));
}

double SyntheticModel::cosine_sd(std::int64_t layer, std::int64_t layer_b) const {
    if (layer == layer_b) return 0.0;
    const double rho_sq = expected_cosine(layer, layer_b);
    const auto hidden = static_cast<double>(config.hidden);
    const auto head_dim = static_cast<double>(config.head_dim);
    const double own = 2.0 * rho_sq * (1.0 - rho_sq) * (1.0 - rho_sq) / (head_dim * hidden);
    return std::sqrt(1.0 / (hidden * hidden) + own);
}

SyntheticSource synthetic_source(const SyntheticModel& model, WeightFamily family, const std::string& name,
                                 std::int64_t layer, std::int64_t first_element) {
    SyntheticSource source;
    source.seed = model.seed;
    source.first_element = first_element;
    if (is_norm(family) || is_bias(family)) {
        source.is_constant = true;
        source.constant = is_norm(family) ? 1.0 : 0.0;
        return source;
    }
    const double t = model.drift_of(layer);
    const Scale scale = scale_of(model.config.hidden);
    const auto factor = [&](double share) {
        return static_cast<std::int64_t>(std::llround(std::ldexp(std::sqrt(share) * scale.c, scale.exponent)));
    };
    source.base_key = fnv1a_64(without_layer_number(name, layer));
    source.own_key = fnv1a_64(name);
    source.base_factor = factor(1.0 - t);
    source.own_factor = factor(t);
    source.exponent = scale.exponent;
    return source;
}

std::vector<std::int32_t> synthetic_tokens(std::uint64_t seed, std::int64_t vocabulary, std::int64_t count) {
    const auto low = [](std::uint64_t number) { return static_cast<std::uint32_t>(number); };
    const auto high = [](std::uint64_t number) { return static_cast<std::uint32_t>(number >> 32U); };
    const std::uint64_t key = fnv1a_64("token_ids");
    std::vector<std::int32_t> ids;
    for (std::uint64_t block = 0; std::ssize(ids) < count; ++block) {
        for (const std::uint32_t word :
             philox4x32({low(block), high(block), low(key), high(key)}, {low(seed), high(seed)})) {
            ids.push_back(static_cast<std::int32_t>(high(word * static_cast<std::uint64_t>(vocabulary))));
        }
    }
    ids.resize(static_cast<std::size_t>(count));
    return ids;
}

}  // namespace geom
