// Where the numbers of measure residual are in the file.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "measures/measure.hpp"
#include "measures/residual_step.hpp"

namespace geom {

/// Singular values, and directions that are kept (one at least: phases go by it), of a layer's step. At least one token
/// is counted.
std::int64_t step_components(const ModelShape& shape);
std::int64_t step_directions(const ModelShape& shape);

Schema declare_residual(const ModelShape& shape);

/// The stream at an edge, [tokens, hidden]: edge r enters row r, the next one leaves it.
using StreamAt = std::function<std::vector<double>(std::int64_t edge)>;

/// Units of the file's layer `row`: its step, and of the last row what legacy makes of it (where has_legacy).
Unit step_unit(std::int64_t row);
Unit legacy_unit(const ModelShape& shape);

/// Computes and emits these units, rising, side by side on the backend's threads: a few at a time.
void emit_units(std::span<const Unit> units, const StreamAt& stream, const MeasureContext& context);

/// Bytes that emit_units takes for as many units as there are threads, their streams among them.
MatricesScratch emit_scratch(const ModelShape& shape, Backend& backend);

/// The mean of -ln p(next token); NaN where none is predicted.
Slab cross_entropy_slab(double mean, const Schema& schema);

/// There is a cross entropy: of a forward pass through all layers over two tokens or more.
bool predicts_next(const ModelShape& shape);

/// legacy/residual is of the model's last layer, and asked for.
bool has_legacy(const ModelShape& shape);

}  // namespace geom
