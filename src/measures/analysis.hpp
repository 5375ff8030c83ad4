// What the measures mean: cosines and their nulls. A pure function of written numbers, used at the end of a run and on
// a finished file alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "output/records.hpp"

namespace geom {

/// Cosines of the QK operators of two layers, from gram [L, L, H]; row-major.
struct Cosines {
    std::int64_t layers = 0;
    std::int64_t heads = 0;
    std::vector<double> cos;       ///< [L, L, H]: gram[l,l',h] / sqrt(gram[l,l,h] gram[l',l',h]); NaN where one is zero
    std::vector<double> cos_mean;  ///< [L, L]: mean over heads that are not NaN; NaN where none is
};

/// Throws Error(internal) when gram has another size than layers^2 heads.
Cosines cosines_of(std::span<const double> gram, std::int64_t layers, std::int64_t heads);

/// The variables of group analysis that this version computes.
std::vector<Variable> analysis_variables();

/// The same numbers as records.
std::vector<Slab> to_slabs(const Cosines& cosines, const Schema& schema);

/// Mean of cos_mean over consecutive layers; NaN for a single layer. NaN entries are skipped.
double mean_adjacent_cosine(const Cosines& cosines);

/// Mean of cos_mean over all pairs l < l'; NaN for a single layer. NaN entries are skipped.
double mean_pair_cosine(const Cosines& cosines);

}  // namespace geom
