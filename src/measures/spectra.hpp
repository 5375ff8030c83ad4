// Singular values of every weight matrix (of layers, of no layer, of experts) and the numbers people read from them.
#pragma once

#include "measures/measure.hpp"

namespace geom {

/// Units: a matrix of a layer, an expert (gate, up, down), a matrix of no layer. Matrices are done by their Gram
/// matrices; those for which that leaves too much in doubt are done again directly.
Measure spectra_measure();

}  // namespace geom
