// geom-mpi bench: rates of the parts that a run is made of, on this machine, in one process; tests/bench puts them
// beside whole runs and the original scripts.
#pragma once

#include "app/options.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// The parts by name: gemm copy gram heads load. Takes turns: each part once, `repeat` times over, so that a machine
/// that slows down slows all of them. Prints a table of medians and spread, and the JSON object that --json asks for.
/// Throws Error(usage) for an unknown part, more than one rank, or `load` without a checkpoint on disk.
void run_bench(const BenchOptions& options, const Communicator& communicator);

}  // namespace geom
