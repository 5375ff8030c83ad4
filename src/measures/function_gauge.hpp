// The gauge `function` of the measure variation: what can be done to a layer that leaves the model's function as it is,
// and brings the layer as near to the next one as it may.
//
//   attention   key heads in any order, their query heads in any order; a phase or a sign of each plane of RoPE, shared
//               by a key head's k and q; an orthogonal matrix for each key head's v and, inversely, o
//               (head_alignment.hpp)
//   MLP         neurons in any order, each with a sign and a scale of up and, inversely, down (neuron_matching.hpp)
//
// It is a subgroup of the whole symmetry: v and o may have any invertible matrix, q and k of a model without q_norm and
// k_norm reciprocal scales of each plane, and scales may go between a norm's weights and the columns they feed.
#pragma once

#include "measures/layer_pair.hpp"

namespace geom {

Gauge function_gauge();

/// Sets q, k, v, o as the gauge does. Where the layer a has q_norm or k_norm whose weights are not the same in both
/// rows of a plane, in every head, the plane has a sign. Not defined for an odd head_dim: NaN.
void aligned_attention(const LayerPair& pair, Backend& backend, FamilyResiduals& residuals);
std::int64_t aligned_attention_bytes(const PairShape& shape, Backend& backend);

}  // namespace geom
