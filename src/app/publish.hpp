// From computed numbers to the one result file: assembled a variable at a time, written by all ranks, verified, analysed,
// renamed; then the page at the end.
#pragma once

#include "app/options.hpp"
#include "app/phases.hpp"
#include "app/recorder.hpp"
#include "app/summary.hpp"
#include "app/survey.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Collective. On failure nothing is left but the journal; throws AgreedError.
void publish(const RunOptions& options, const Survey& survey, RunRecord run, Recorder& recorder, const Communicator& communicator,
             Phases& phases);

}  // namespace geom
