// A checkpoint's config as a forward pass sees it.
#pragma once

#include "checkpoint/families.hpp"
#include "checkpoint/model_config.hpp"
#include "core/forward_shape.hpp"

namespace geom {

/// What the pass has to do, or, in `refused`, the first thing it cannot honour: another rope_type, partial rotary,
/// odd head_dim, another activation, biases of the MLP or of o_proj. Measures of weights run all the same.
ForwardShape forward_shape_of(const ModelFamily& family, const ModelConfig& config);

}  // namespace geom
