// legacy/heads: what scripts before this program kept of each head, for people who have such results. Their numbers are
// of the hd x hd product W_K W_Q^T, not of the operator g = W_K^T W_Q:
//
//   fro_sq     |W_K W_Q^T|^2, not |g|^2
//   eig_dirs   unit rows of V^T W_Q with W_K W_Q^T = U S V^T: no singular vectors of g, not orthogonal
//   sym_eigs   eigenvalues of g + g^T that can be non-zero, descending magnitude
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "measures/heads.hpp"
#include "measures/measure.hpp"

namespace geom {

/// Of one layer, row-major.
struct LegacyHeads {
    std::vector<double> fro_sq;    ///< [H]
    std::vector<float> eig_dirs;   ///< [H, k, D], k = min(top_k, hd); the entry of largest magnitude is positive
    std::vector<double> sym_eigs;  ///< [H, 2hd]; zeros of a rank-deficient head are rounding, as they were
};

/// Takes weights that heads_of_layer takes.
LegacyHeads legacy_heads_of_layer(Backend& backend, const LayerQK& weights, std::int64_t top_k);

/// Not by default: --legacy asks for it beside heads.
Measure legacy_heads_measure();

}  // namespace geom
