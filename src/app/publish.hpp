// From computed numbers to the one result file: assembled a variable at a time, written by all ranks, verified,
// analysed, renamed.
#pragma once

#include "app/phases.hpp"
#include "app/recorder.hpp"
#include "app/summary.hpp"
#include "app/survey.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Collective. Completes `run` with times and memory. Returns what rank 0 analysed (the others: nothing). On failure
/// nothing is left but the journal; throws AgreedError.
Cosines publish(const Survey& survey, RunRecord& run, Recorder& recorder, const Communicator& communicator,
                Phases& phases);

}  // namespace geom
