// heads: each head's operator on its own, a layer at a time (heads_of_layer.hpp).
#pragma once

#include <cstdint>
#include <vector>

#include "measures/heads_of_layer.hpp"
#include "measures/measure.hpp"
#include "output/records.hpp"

namespace geom {

/// The variables of group `heads`: scales layer, head, rank, sym, direction, hidden.
std::vector<Variable> heads_variables();

/// One layer's share of heads_variables(); `layer` counts those with attention.
std::vector<Slab> heads_slabs(const Schema& schema, std::int64_t layer, const HeadsOfLayer& values);

Measure heads_measure();

}  // namespace geom
