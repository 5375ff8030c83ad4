// What each layer adds to the residual stream, from a forward pass over a text or from streams in a file.
#pragma once

#include "measures/measure.hpp"

namespace geom {

/// Units: a layer; of a forward pass also the weight that predicts the next token, for the cross entropy. Which text,
/// or which file, is in ModelShape::settings.residual.
Measure residual_measure();

}  // namespace geom
