// How a mixture's router chooses, on the host.
#pragma once

#include <cstdint>

#include "kernels/transformer.hpp"

namespace geom {

/// Router logits of one token, `stride` apart.
struct RouterLogits {
    const float* at = nullptr;
    std::int64_t stride = 1;
    std::int64_t experts = 0;
};

/// What Transformer::route writes of one token: routing.per_token experts and their weights.
void choose_experts(const RouterLogits& logits, const Routing& routing, std::int32_t* experts, float* weights);

}  // namespace geom
