// What one layer adds to the residual stream: the step d = h' - h of every token, h and h' the stream before and after
// the layer. Pure numbers: where streams come from is hidden_states.hpp's and residual_forward.hpp's.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.hpp"

namespace geom {

/// A number of a layer's step, as it is named in the file.
struct StepFigure {
    const char* name;
    const char* long_name;
    const char* missing;  ///< why it may be NaN; empty when it cannot be
};

inline constexpr int step_figure_count = 14;
extern const std::array<StepFigure, step_figure_count> step_figures;

/// The step of one layer.
struct LayerStep {
    std::array<double, step_figure_count> figures{};  ///< in the order of step_figures
    std::vector<double> spectrum;                     ///< min(tokens, hidden) singular values of d, descending
    std::vector<float> top_dirs;       ///< [k, hidden]: right singular vectors, the largest entry positive; NaN for a 0
    std::vector<float> top_dirs_rest;  ///< what rounding to f32 left of them
};

/// Two streams beside each other, [tokens, hidden].
struct StepInput {
    std::span<const double> before, after;
};

/// The steps of some layers, side by side on the backend's threads; a layer's bits depend on its streams alone.
/// k <= min(tokens, hidden). Throws Error(numerics) for NaN and infinity.
std::vector<LayerStep> steps_of(std::span<const StepInput> layers, std::int64_t hidden, std::int64_t k,
                                Backend& backend);

/// Bytes that steps_of takes beside its input and output: of as many layers as there are threads.
MatricesScratch step_scratch(std::int64_t tokens, std::int64_t hidden, std::int64_t k, Backend& backend);

}  // namespace geom
