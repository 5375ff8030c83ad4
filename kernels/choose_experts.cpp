#include "kernels/choose_experts.hpp"

#include <algorithm>
#include <cmath>

namespace geom {

void choose_experts(const RouterLogits& logits, const Routing& routing, std::int32_t* experts, float* weights) {
    const auto logit = [&](std::int64_t expert) { return logits.at[expert * logits.stride]; };
    const auto is_taken = [&](std::int64_t expert, std::int64_t chosen) {
        return std::find(experts, experts + chosen, static_cast<std::int32_t>(expert)) != experts + chosen;
    };
    for (std::int64_t chosen = 0; chosen < routing.per_token; ++chosen) {
        std::int64_t best = -1;
        for (std::int64_t expert = 0; expert < logits.experts; ++expert) {
            if (!is_taken(expert, chosen) && (best < 0 || logit(expert) > logit(best))) best = expert;
        }
        experts[chosen] = static_cast<std::int32_t>(best);
    }
    const auto share = [&](std::int64_t expert) {
        return std::exp(static_cast<double>(logit(expert) - logit(experts[0])));
    };
    double all = 0.0, of_chosen = 0.0;
    for (std::int64_t expert = 0; expert < logits.experts; ++expert) all += share(expert);
    for (std::int64_t chosen = 0; chosen < routing.per_token; ++chosen) of_chosen += share(experts[chosen]);
    for (std::int64_t chosen = 0; chosen < routing.per_token; ++chosen)
        weights[chosen] = static_cast<float>(share(experts[chosen]) / (routing.renormalise ? of_chosen : all));
}

}  // namespace geom
