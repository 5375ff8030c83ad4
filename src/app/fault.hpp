// Faults on purpose, for the tests of everything that must survive them: GEOM_MPI_FAULT=KIND:PHASE:RANK:N, KIND one of
// error, exception, abort, kill, stop; it strikes when the rank comes to the phase for the N-th time (from 0): load,
// exchange, write, or the name of a measure. Without the variable nothing here does anything.
#pragma once

#include <string>

namespace geom {

/// Strikes this rank when the variable says so. An "error" is an Error(numerics), as measures throw it.
void maybe_fail(const std::string& phase, int rank);

}  // namespace geom
