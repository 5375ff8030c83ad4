// The gauges that align with nothing, or with one orthogonal matrix a head and one for the MLP's neurons.
#pragma once

#include "measures/layer_pair.hpp"

namespace geom {

/// Weights as stored; and what the gauge `function` aligns: norm weights folded in, neurons balanced.
Gauge none_gauge();
Gauge none_folded_gauge();

/// Per query head one orthogonal R for q, k, v and o; one for gate, up and down. Where 3 hidden < intermediate it turns
/// what the weights span.
Gauge rotation_gauge();

/// R = U V^T for M = U S V^T, as earlier scripts had it (not the minimiser). Of the MLP it is open where 3 hidden <
/// intermediate: NaN.
Gauge backward_gauge();

}  // namespace geom
