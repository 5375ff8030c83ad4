// A measure: what it reads, what it writes, and the two places where it is given something to look at. Adding one takes
// a file that defines it, its line in measures(), and a test.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.hpp"
#include "checkpoint/weight.hpp"
#include "kernels/backend.hpp"
#include "measures/head_store.hpp"
#include "output/records.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// Options that change numbers.
struct MeasureSettings {
    std::int64_t top_k = 8;  ///< singular directions that are kept of each head; at most head_dim are
};

/// What every call of a measure gets.
struct MeasureContext {
    const ModelConfig& config;
    Range layers;  ///< of the model, that this run looks at; records count from its first
    const MeasureSettings& settings;
    const Schema& schema;
    Backend& backend;
    std::function<void(UnitResult)> emit;  ///< takes a finished unit
};

/// Bytes that a measure takes while it looks at a layer.
struct LayerScratch {
    std::int64_t working = 0;  ///< of the backend's memory, until it is done
    std::int64_t kept = 0;     ///< of the backend's memory, also afterwards
    std::int64_t host = 0;     ///< of the host's memory, until it is done
};

struct Measure {
    std::string_view name;
    std::string_view summary;         ///< one line, for --help
    std::vector<WeightFamily> needs;  ///< weights of every layer
    bool head_blocks = false;         ///< finish with W_Q and W_K head blocks of all layers, by key/value group

    /// The variables of its group of the result file.
    std::vector<Variable> (*variables)() = nullptr;

    /// What one layer alone can answer; null when nothing. Emits unit (name, layer).
    void (*layer)(const LayerWeights& weights, const MeasureContext& context) = nullptr;

    /// What `layer` takes besides the weights and its numbers; null when nothing.
    LayerScratch (*layer_scratch)(const ModelConfig& config, const MeasureSettings& settings,
                                  Backend& backend) = nullptr;

    /// What a key/value group of all layers can answer; null when nothing. Emits units (name, query head).
    void (*group)(const HeadStore& blocks, std::int64_t share, const MeasureContext& context) = nullptr;
};

/// All measures of this build, in the order in which results are written.
std::span<const Measure> measures();

/// Null when this build has no measure of that name.
const Measure* find_measure(std::string_view name);

/// The axes all measures share: layer, layer_b, head, direction, hidden, rank, sym.
std::vector<Scale> shared_scales(const ModelConfig& config, Range layers, const MeasureSettings& settings);

}  // namespace geom
