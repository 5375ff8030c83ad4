// Random transformations of a decoder layer: ones that leave the model's function as it is, and rotations. What they do
// to a layer is known, so that measures can be shown to do what theory says.
#pragma once

#include <complex>
#include <cstdint>
#include <map>
#include <vector>

#include "core/random.hpp"
#include "core/weight_family.hpp"

namespace geom {

/// A decoder layer with attention and a dense MLP in the host's memory, row-major as stored; families it lacks are
/// absent.
struct LayerTensors {
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0, hidden = 0, intermediate = 0;
    std::map<WeightFamily, std::vector<double>> of;

    std::int64_t group() const noexcept { return heads / kv_heads; }
};

/// An element of the gauge `function`. Query head h becomes query head head_to[h], of the key head that its own
/// becomes.
struct FunctionElement {
    std::vector<std::int64_t> head_to;       ///< [H]
    std::vector<std::complex<double>> turn;  ///< [KV, hd/2]: of the rows p and p + hd/2 of k and of its group's q
    std::vector<double> rotation;            ///< [KV, hd, hd] orthogonal: of v, and inversely of its group's o
    std::vector<std::int64_t> neuron_to;     ///< [F]
    std::vector<double> scale;               ///< [F]: of a neuron's up, and inversely of its down; either sign
};

/// Where q_norm or k_norm has other weights in the two rows of a plane, its turn is a sign.
FunctionElement random_function_element(const LayerTensors& layer, RandomNumbers& random);

/// Weights and biases; norms stay.
void apply(const FunctionElement& element, LayerTensors& layer);

/// An element of the gauge `rotation`: one orthogonal matrix for each key head, of its k, v and its group's q and,
/// inversely, o; one for the neurons. Orders are not changed, the model's function is.
void apply_random_rotation(LayerTensors& layer, RandomNumbers& random);

/// Row-major n x n, of Haar's distribution: rows of normal numbers, orthogonalised.
std::vector<double> random_orthogonal(std::int64_t n, RandomNumbers& random);

}  // namespace geom
