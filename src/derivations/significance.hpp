// Every cosine beside what it would be by chance (null_models.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "derivations/derivation.hpp"
#include "derivations/statistics.hpp"

namespace geom {

/// Cosines of heads of one layer with heads of another that they are not matched with: what they are for two layers of
/// this model. Heads that share a key head are not independent, so those of matched groups stand apart.
struct EmpiricalNull {
    Moments other_keys;   ///< with heads of another group than the matched head's
    Moments shared_keys;  ///< with the matched head's neighbours, which share its key head
};

/// `cosines` is [H, H]; `matched` names the column each row is matched with. NaN (zero operators) left out.
EmpiricalNull empirical_null(std::span<const double> cosines, std::span<const double> matched, std::int64_t group_size);

/// The part of group analysis that sets cosines of gram against nulls: those that heads and match make known.
Schema declare_significance(const Schema& present);
void compute_significance(const DerivationContext& context);

}  // namespace geom
