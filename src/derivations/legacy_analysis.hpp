// legacy/analysis: what scripts before this program made of legacy/heads and gram, for people who have such results.
// Cosines are those of group analysis. Signs are of legacy/heads; angles of its eig_dirs, which are not orthogonal and
// go through QR; top1_overlap is of their first rows as they are. Thirds are layers 0-11, 12-23, 24 and up.
#pragma once

#include <span>

#include "derivations/derivation.hpp"

namespace geom {

/// Gram and Schmidt, twice, in place: rows [k, hidden] become orthonormal, the first keeps its direction. What follows
/// from the rows before it is left as rounding has it.
void orthonormalise(std::span<float> rows, std::int64_t hidden);

Derivation legacy_analysis_derivation();

}  // namespace geom
