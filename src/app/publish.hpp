// From computed numbers to the one result file: assembled a variable at a time, written by all ranks, verified, derived
// from, renamed.
#pragma once

#include "app/phases.hpp"
#include "app/survey.hpp"
#include "mpi/communicator.hpp"
#include "output/run_record.hpp"

namespace geom {

/// Collective. Completes `run` with times and memory. Numbers of measures that are not computed are taken from the
/// result that is there. A result that appears meanwhile stays unless `overwrite`. On failure nothing is left but the
/// journal, and that result; throws AgreedError.
void publish(const Survey& survey, bool overwrite, RunRecord& run, Recorder& recorder, const Communicator& communicator,
             Phases& phases);

}  // namespace geom
