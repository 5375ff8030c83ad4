// From what a plan lists to what a stream is asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/plan.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// What a rank reads for these loads: of W_Q and W_K at least the rows of the heads in `pass`.
std::vector<LayerRequest> requests_of(const Plan& plan, const std::vector<Load>& loads, std::int64_t pass);

}  // namespace geom
