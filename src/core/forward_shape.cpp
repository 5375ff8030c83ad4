#include "core/forward_shape.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace geom {

namespace {

constexpr double two_pi = 2.0 * std::numbers::pi;

/// Slow dimensions are stretched by `factor`, fast ones stay, those between are mixed (Llama 3.1).
double llama3(const RopeShape& rope, double frequency) {
    const auto positions = static_cast<double>(rope.original_max_positions);
    const double wavelength = two_pi / frequency;
    if (wavelength < positions / rope.high_freq_factor) return frequency;
    if (wavelength > positions / rope.low_freq_factor) return frequency / rope.factor;
    const double kept =
        (positions / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    return (1.0 - kept) * frequency / rope.factor + kept * frequency;
}

/// The dimension that turns so often over the original positions.
double yarn_dimension(const RopeShape& rope, std::int64_t head_dim, double turns) {
    return static_cast<double>(head_dim) *
           std::log(static_cast<double>(rope.original_max_positions) / (turns * two_pi)) / (2.0 * std::log(rope.theta));
}

/// As llama3, mixed by the dimension's number (Peng et al. 2023).
double yarn(const RopeShape& rope, std::int64_t head_dim, std::int64_t i, double frequency) {
    double low = yarn_dimension(rope, head_dim, rope.beta_fast), high = yarn_dimension(rope, head_dim, rope.beta_slow);
    if (rope.truncate) {
        low = std::floor(low);
        high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(head_dim - 1));
    if (low == high) high += 0.001;
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    return stretched * frequency / rope.factor + (1.0 - stretched) * frequency;
}

double stretched(const RopeShape& rope, std::int64_t head_dim, std::int64_t i, double frequency) {
    switch (rope.type) {
        case RopeShape::Type::linear:
            return frequency / rope.factor;
        case RopeShape::Type::llama3:
            return llama3(rope, frequency);
        case RopeShape::Type::yarn:
            return yarn(rope, head_dim, i, frequency);
        case RopeShape::Type::standard:
            break;
    }
    return frequency;
}

}  // namespace

std::string ForwardShape::refusal(std::int64_t tokens) const {
    if (!refused.empty() || sliding_window == 0 || tokens <= sliding_window) return refused;
    return fmt::format("queries see {} tokens (sliding_window) and the text has {}; --max-tokens {} would do",
                       sliding_window, tokens, sliding_window);
}

Rotation rotation_of(const RopeShape& rope, std::int64_t head_dim) {
    Rotation rotation;
    for (std::int64_t i = 0; i < head_dim / 2; ++i) {
        const double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        rotation.frequencies.push_back(static_cast<float>(stretched(rope, head_dim, i, frequency)));
    }
    if (rope.type == RopeShape::Type::yarn) rotation.scale = static_cast<float>(rope.attention_factor);
    return rotation;
}

}  // namespace geom
