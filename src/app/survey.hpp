// What a run is going to do: the model, the measures, the plan. Nothing is loaded yet.
#pragma once

#include <string>
#include <vector>

#include "app/machine.hpp"
#include "app/options.hpp"
#include "checkpoint/checkpoint.hpp"
#include "kernels/backend.hpp"
#include "measures/measure.hpp"
#include "plan/plan.hpp"

namespace geom {

/// The measures that were asked for, or all, in the order of measures().
std::vector<const Measure*> chosen_measures(const RunOptions& options);

/// --layers, checked against the model. Throws Error(usage).
Range chosen_layers(const RunOptions& options, const ModelConfig& config);

/// Families of the layer that any of the measures needs.
std::vector<WeightFamily> needed_weights(const std::vector<const Measure*>& measures);

/// Which part of a layer a family is loaded with.
LayerPart part_of(WeightFamily family);

/// The widest of all W_Q and W_K types.
DType operator_dtype(const Checkpoint& checkpoint, Range layers);

/// The axes and variables of the result.
Schema make_schema(const ModelConfig& config, Range layers, const MeasureSettings& settings,
                   const std::vector<const Measure*>& measures);

/// Everything the plan asks for; `pending_heads` are all.
PlanInput plan_input(const Checkpoint& checkpoint, Range layers, const std::vector<const Measure*>& measures,
                     const MeasureSettings& settings, const Schema& schema, const Backend& backend,
                     const HeadBlockFormat& format, const Machine& machine, int ranks);

/// What a rank reads of each of its layers in a pass.
std::vector<LayerRequest> layer_requests(const Plan& plan, std::int64_t pass, std::int64_t rank, Range layers,
                                         const std::vector<const Measure*>& measures);

/// The model and the costs, as text for people.
std::string describe_model(const Checkpoint& checkpoint);
std::string describe_plan(const Plan& plan, const HeadBlockFormat& format);

}  // namespace geom
