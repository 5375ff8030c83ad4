// The way of the data, from a checkpoint to one result file: plan, stream, exchange, measures, assembly, writing.
#pragma once

#include <functional>

#include "app/options.hpp"
#include "app/phases.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Collective. Runs what the options ask for and prints the summary on rank 0. Throws AgreedError for failures that all
/// ranks know of, anything else for this rank's own.
void run_pipeline(const RunOptions& options, const std::string& command_line, const Communicator& communicator,
                  Phases& phases);

/// What a run would do: for people, and as an object for programs.
struct PlanReport {
    std::string text, object;
};

/// Collective. What a run of these ranks, or of `options.ranks` on machines like this one, would do; nothing is loaded
/// or written. Without a budget that was asked for the plan is made however much memory it takes, and says so.
PlanReport dry_run(const RunOptions& options, const Communicator& communicator);

}  // namespace geom
