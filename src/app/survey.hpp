// What a run is going to do: the model, the measures, what is done already, the plan. No weight is loaded yet.
#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "app/machine.hpp"
#include "app/options.hpp"
#include "checkpoint/checkpoint.hpp"
#include "kernels/backend.hpp"
#include "measures/measure.hpp"
#include "output/journal.hpp"
#include "plan/plan.hpp"

namespace geom {

struct Survey {
    Machine machine;
    Checkpoint checkpoint;
    Range layers;  ///< of the model, that are looked at
    MeasureSettings settings;
    std::vector<const Measure*> measures;
    std::unique_ptr<Backend> backend;
    HeadBlockFormat format;
    Schema schema;               ///< the measures' variables
    std::filesystem::path file;  ///< the result

    std::vector<std::string> measure_names() const;
    /// What has to be equal for recorded units to be this run's.
    Identity identity() const;
};

/// Local; the same on every rank. Throws Error(usage) and Error(input).
Survey make_survey(const RunOptions& options, const Machine& machine);

/// The plan for what is not `done` yet.
Plan make_plan(const Survey& survey, const std::set<Unit>& done, int ranks);

/// What a rank reads of each of its layers in a pass; nothing of a layer whose units are all done.
std::vector<LayerRequest> layer_requests(const Survey& survey, const Plan& plan, const std::set<Unit>& done,
                                         std::int64_t pass, std::int64_t rank);

/// The model and the costs, as text for people.
std::string describe_model(const Checkpoint& checkpoint);
std::string describe_plan(const Survey& survey, const Plan& plan);

}  // namespace geom
