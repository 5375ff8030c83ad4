// What a run is going to do: the model, the measures, what is done already, the plan. No weight is loaded yet.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "app/machine.hpp"
#include "app/options.hpp"
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/fingerprint.hpp"
#include "core/error.hpp"
#include "derivations/derivation.hpp"
#include "kernels/backend.hpp"
#include "measures/measure.hpp"
#include "output/recorder.hpp"
#include "plan/plan.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

struct Survey {
    Machine machine;
    Checkpoint checkpoint;
    std::string fingerprint;  ///< of it, Fingerprint::digest
    Range layers;             ///< of the model, that are looked at
    Range block;              ///< of these, over which variation is summarised
    ModelShape shape;
    std::vector<const Measure*> measures;  ///< that are computed
    std::vector<const Measure*> copied;    ///< whose numbers come from the result that is there (--add)
    std::vector<std::string> left_out;     ///< measures that run unasked but for this model or text, with the reason
    std::string note;                      ///< about what residual goes over
    std::optional<Error> no_residual;      ///< why it has nothing to go over
    std::string residual_identity;         ///< of what it goes over
    std::unique_ptr<Backend> backend;
    HeadBlockFormat format;
    RunToRecord run;  ///< the file, and what `measures` write and emit
    Schema measured;  ///< what `measures` and `copied` write, in the order of the file
    DerivationSettings derivation_settings;
};

struct OpenedCheckpoint {
    Checkpoint checkpoint;
    Fingerprint fingerprint;
};

/// Local; without a fingerprint for a dry run, which reads headers alone (but for --add, which compares them). Throws
/// Error(usage) and Error(input).
OpenedCheckpoint open_checkpoint(const RunOptions& options);

/// Local; the same on every rank when what was opened is. Throws Error(usage) and Error(input).
Survey make_survey(const RunOptions& options, const Machine& machine, OpenedCheckpoint opened);

/// With --add: measures that the result `file` has move from `measures` to `copied`, with all others it has. Throws
/// Error(usage) when it is of another model or other options, Error(input) when it is not there or no result.
void add_to_result(Survey& survey);

/// Names of `measures` and `copied`, in the order of the file.
std::vector<std::string> measures_in_file(const Survey& survey);

/// The plan for what is not `done` yet.
Plan make_plan(const Survey& survey, const std::set<Unit>& done, int ranks);

}  // namespace geom
