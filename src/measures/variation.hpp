// What changes from a layer to the next one: distances of weights of unit norm, after each gauge. One unit a pair of
// layers and set of families (attention, MLP).
#pragma once

#include "measures/measure.hpp"

namespace geom {

Measure variation_measure();

/// With R = U V^T, as earlier scripts had it.
Measure legacy_variation_measure();

}  // namespace geom
