// How the directions of the layers' steps relate, from residual/top_dirs (and their rest): layer by layer, and inside
// the phases that layers are divided into.
//
//   V_l [k, hidden]   top_dirs of layer l, v_l its first row
//   block of a phase  all V_l of its layers on top of one another; b_1, b_2, ... its right singular vectors
#pragma once

#include "derivations/derivation.hpp"

namespace geom {

/// top1_cos[l, l'] = |cos(v_l, v_l')|; subspace_overlap[l, l'] = ||V_l V_l'^T||^2 / k, by chance k / hidden. Of a
/// phase: phase_intra_cos, the mean top1_cos of its pairs, and phase_cross_cos, of its layers with all others.
/// block_capture[l] = sum_{j <= 8} (v_l . b_j)^2 with the block of its phase; block_capture_others the same with layer
/// l left out of the block, by chance 8 / hidden.
Derivation phases_derivation();

}  // namespace geom
