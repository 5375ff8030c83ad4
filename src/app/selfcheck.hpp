// geom-mpi selfcheck: what theory says of a model's own weights, tried on them.
#pragma once

#include "app/options.hpp"

namespace geom {

/// Every layer is changed in memory by a random element of the gauge `function`, and what must not change is compared:
/// each layer's output, the cross entropy of made-up tokens, the QK operators of its heads, and the distance of the
/// changed layer in the measure variation, which that gauge brings to zero and nothing else does. Prints a table. On
/// this rank's threads, a layer at a time. Throws Error(numerics) where something is not as it should be.
void selfcheck(const SelfcheckOptions& options, int threads);

}  // namespace geom
