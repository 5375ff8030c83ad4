// What the measure residual goes over: a text's tokens, or streams from a file, and the phases of the model.
#pragma once

#include <string>

#include "app/options.hpp"
#include "checkpoint/checkpoint.hpp"
#include "core/model_shape.hpp"

namespace geom {

struct ResidualInput {
    ResidualSettings settings;
    std::string identity;  ///< what has to be equal for units to be the same
    std::string note;      ///< for the log; empty when there is nothing to say
};

/// Reads files; the same on every rank that sees the same ones. Throws Error(input) when a file is missing or
/// malformed, or there are too few tokens; Error(usage) when the model, or the layers chosen, have no forward pass.
ResidualInput residual_input(const RunOptions& options, const Checkpoint& checkpoint, const ModelShape& shape);

/// Any of its inputs was named by the user.
bool names_residual_input(const RunOptions& options) noexcept;

}  // namespace geom
