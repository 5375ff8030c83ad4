// The program's commands.
#pragma once

#include "app/options.hpp"
#include "app/phases.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Collective. Runs the command and returns its exit code; errors are thrown. `phases` tells a catcher where it was.
int run_command(const Options& options, const Communicator& communicator, Phases& phases);

}  // namespace geom
