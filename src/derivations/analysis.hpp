// What the gram means: cosines of the QK operators of two layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "derivations/derivation.hpp"

namespace geom {

/// One layer against all: a row of the group's variables.
struct CosineRow {
    std::vector<double> cos;   ///< [L, H]: gram[l,l',h] / sqrt(gram[l,l,h] gram[l',l',h]); NaN where one is zero
    std::vector<double> mean;  ///< [L]: over heads that are not NaN; NaN where none is
};

/// `gram` is [L, H], row `layer` of gram; `norms` is [L, H], the roots of gram's diagonal. Throws Error(internal) when
/// the sizes do not fit.
CosineRow cosines_with(std::int64_t layer, std::span<const double> gram, std::span<const double> norms,
                       std::int64_t heads);

/// Mean of cos_mean [L, L] over consecutive layers; NaN for a single layer. NaN entries are skipped.
double mean_adjacent_cosine(std::span<const double> cos_mean, std::int64_t layers);

/// Mean of cos_mean [L, L] over all pairs l < l'; NaN for a single layer. NaN entries are skipped.
double mean_pair_cosine(std::span<const double> cos_mean, std::int64_t layers);

/// Group analysis, from gram.
Derivation analysis_derivation();

}  // namespace geom
