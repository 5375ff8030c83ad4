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

/// Collective. What a run of these ranks would do, as text; nothing is loaded or written.
std::string dry_run(const RunOptions& options, const Communicator& communicator);

}  // namespace geom
