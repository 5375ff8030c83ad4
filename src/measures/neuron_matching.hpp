// Which neurons of a layer's MLP are which of the next one's: the MLP part of the gauge `function`, neurons in any
// order, each with a sign and a scale of its row of up and, inversely, its column of down.
//
// Scales are spent on balancing: ||u_i|| = ||d_i|| in every neuron. Then, with each matrix of unit norm, sum S_i,pi(i)
// is made as large as it can be,
//
//     S = ga gb^T + |ua ub^T + da^T db|
//
// in f32, by a linear assignment (core/large_assignment.hpp); a pair's sign is that inside the bars.
#pragma once

#include <cstdint>
#include <vector>

#include "measures/layer_pair.hpp"

namespace geom {

/// Factors of the rows of gate and up and of the columns of down that balance each neuron and give each matrix unit
/// norm. Of a neuron whose u_i or d_i is zero those of both are 0; where a matrix is zero all of its factors are.
struct NeuronFactors {
    std::vector<double> gate, up, down;  ///< [F]
};
NeuronFactors balanced_neurons(const FoldedMatrix& gate, const FoldedMatrix& up, const FoldedMatrix& down,
                               Workers& workers);

/// Sets gate, up, down: neurons as they are, balanced (none_folded), or matched (function). NaN where a matrix is zero.
void balanced_mlp(const LayerPair& pair, Backend& backend, FamilyResiduals& residuals);
void matched_mlp(const LayerPair& pair, Backend& backend, FamilyResiduals& residuals);

std::int64_t balanced_mlp_bytes(const PairShape& shape, Backend& backend);
std::int64_t matched_mlp_bytes(const PairShape& shape, Backend& backend);

}  // namespace geom
