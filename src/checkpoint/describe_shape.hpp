// A checkpoint as declarations and plans see it.
#pragma once

#include "checkpoint/checkpoint.hpp"
#include "core/model_shape.hpp"

namespace geom {

/// The shape of these decoder layers, as far as the checkpoint holds their weights. Reads headers alone. Throws
/// Error(input) when a layer lacks W_Q or W_K, or when a tensor that is there has another shape or type than
/// config.json says.
ModelShape shape_of(const Checkpoint& checkpoint, Range layers, const MeasureSettings& settings);

}  // namespace geom
