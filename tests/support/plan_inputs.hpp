// Models and demands for tests of plans: shapes made of a few numbers, and what measures of every kind would ask for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "plan/plan.hpp"

namespace geom::test {

inline constexpr std::int64_t plenty = std::int64_t{1} << 50;

struct Sizes {
    std::int64_t layers, heads, kv_heads, head_dim, hidden, intermediate;
};
inline constexpr Sizes qwen3_32b{64, 64, 8, 128, 5120, 25600};

inline std::vector<WeightFamily> attention_families() {
    return {WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj, WeightFamily::o_proj};
}
inline std::vector<WeightFamily> mlp_families() {
    return {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj};
}

inline void add_mlp(LayerShape& layer, std::int64_t expert, std::int64_t intermediate, std::int64_t hidden) {
    layer.weights.push_back({WeightFamily::gate_proj, expert, intermediate, hidden, DType::bf16});
    layer.weights.push_back({WeightFamily::up_proj, expert, intermediate, hidden, DType::bf16});
    layer.weights.push_back({WeightFamily::down_proj, expert, hidden, intermediate, DType::bf16});
}

/// A layer of `s`, bf16; without `attention` the MLP alone; with `experts` of them, and no MLP of its own.
inline LayerShape layer_of(const Sizes& s, std::int64_t number, bool attention = true, std::int64_t experts = 0) {
    LayerShape layer{number, attention, s.kv_heads, s.head_dim, experts, {}};
    if (attention) {
        const std::int64_t q = s.heads * s.head_dim, k = s.kv_heads * s.head_dim;
        layer.weights = {{WeightFamily::q_proj, -1, q, s.hidden, DType::bf16},
                         {WeightFamily::k_proj, -1, k, s.hidden, DType::bf16},
                         {WeightFamily::v_proj, -1, k, s.hidden, DType::bf16},
                         {WeightFamily::o_proj, -1, s.hidden, q, DType::bf16}};
    }
    if (experts == 0) add_mlp(layer, -1, s.intermediate, s.hidden);
    for (std::int64_t expert = 0; expert < experts; ++expert) add_mlp(layer, expert, s.intermediate, s.hidden);
    return layer;
}

/// A dense model, all layers alike, with embeddings of 1000 tokens.
inline ModelShape model_of(const Sizes& s) {
    ModelShape shape;
    shape.family = "qwen3";
    shape.model_layers = s.layers;
    shape.heads = s.heads;
    shape.hidden = s.hidden;
    shape.vocabulary = 1000;
    for (std::int64_t l = 0; l < s.layers; ++l) shape.layers.push_back(layer_of(s, l));
    shape.globals = {{WeightFamily::embed_tokens, -1, shape.vocabulary, s.hidden, DType::bf16}};
    return shape;
}

inline std::vector<std::int64_t> heads_of(const ModelShape& shape) {
    std::vector<std::int64_t> heads;
    for (std::int64_t head = 0; head < shape.heads; ++head) heads.push_back(head);
    return heads;
}

/// Same head in all layers, like gram: (1 + heads) L (L + 1) / 2 products of hd x hd x D.
inline MeasureDemand same_head(const std::vector<std::int64_t>& heads) {
    MeasureDemand demand;
    demand.name = "same";
    demand.needs.pairs = HeadPairs::same_head;
    for (const std::int64_t head : heads) demand.owed.push_back({"same", UnitOf::head, head, 0});
    demand.memory.pair = 10 << 20;
    demand.work = [](const ModelShape& shape, std::span<const Unit> units) {
        const std::int64_t layers = std::ssize(shape.attention_rows()), hd = shape.head_dim();
        return Work{(1 + std::ssize(units)) * (layers * (layers + 1) / 2) * 2 * hd * hd * shape.hidden, 0};
    };
    return demand;
}

/// The same of folded blocks.
inline MeasureDemand folded_heads(const std::vector<std::int64_t>& heads) {
    MeasureDemand demand = same_head(heads);
    demand.name = "folded";
    demand.needs.form = BlockForm::folded;
    for (Unit& unit : demand.owed) unit.measure = "folded";
    return demand;
}

/// Every head against every head: units (head, group) from the head's own group upwards.
inline MeasureDemand all_pairs(const ModelShape& shape) {
    MeasureDemand demand;
    demand.name = "pairs";
    demand.needs.pairs = HeadPairs::all_heads;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
        for (std::int64_t group = head / shape.group_size(); group < shape.groups(); ++group)
            demand.owed.push_back({"pairs", UnitOf::pair, head, group});
    }
    return demand;
}

/// Sets of families of every layer that has any of a set's; with `previous`, from the second row on, beside the row
/// before.
inline MeasureDemand of_layers(const std::string& name, const ModelShape& shape,
                               std::vector<std::vector<WeightFamily>> sets, bool previous = false) {
    MeasureDemand demand;
    demand.name = name;
    demand.needs.together = std::move(sets);
    demand.needs.previous_layer = previous;
    for (std::int64_t row = previous ? 1 : 0; row < shape.rows(); ++row) {
        for (std::int64_t set = 0; set < std::ssize(demand.needs.together); ++set) {
            const auto& families = demand.needs.together[static_cast<std::size_t>(set)];
            const auto there = [&](WeightFamily family) { return shape.at(row).has(family); };
            if (std::any_of(families.begin(), families.end(), there))
                demand.owed.push_back({name, UnitOf::layer, row, set});
        }
    }
    return demand;
}

/// All seven families: attention together, gate, up and down by themselves.
inline MeasureDemand all_families(const ModelShape& shape) {
    return of_layers(
        "all", shape,
        {attention_families(), {WeightFamily::gate_proj}, {WeightFamily::up_proj}, {WeightFamily::down_proj}});
}

/// A layer beside the one before it: attention and MLP apart.
inline MeasureDemand steps(const ModelShape& shape) {
    return of_layers("steps", shape, {attention_families(), mlp_families()}, true);
}

/// Three chunks through all layers, in rising order.
inline MeasureDemand walk(const ModelShape& shape) {
    MeasureDemand demand = of_layers("walk", shape, {{WeightFamily::q_proj, WeightFamily::o_proj}, mlp_families()});
    demand.needs.together = {{WeightFamily::q_proj, WeightFamily::o_proj, WeightFamily::gate_proj,
                              WeightFamily::up_proj, WeightFamily::down_proj}};
    demand.needs.rising = {3, 4096};
    demand.owed.clear();
    for (std::int64_t row = 0; row < shape.rows(); ++row) demand.owed.push_back({"walk", UnitOf::layer, row, 0});
    return demand;
}

inline MeasureDemand of_experts(const ModelShape& shape) {
    MeasureDemand demand;
    demand.name = "experts";
    demand.needs.experts = true;
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::int64_t expert = 0; expert < shape.at(row).experts; ++expert)
            demand.owed.push_back({"experts", UnitOf::expert, row, expert});
    }
    return demand;
}

inline MeasureDemand of_globals(const ModelShape& shape) {
    MeasureDemand demand;
    demand.name = "globals";
    demand.needs.globals = true;
    for (std::int64_t i = 0; i < std::ssize(shape.globals); ++i)
        demand.owed.push_back({"globals", UnitOf::global, i, 0});
    return demand;
}

/// Of bf16 blocks, with memory to spare.
inline PlanInput input_of(ModelShape shape, std::vector<MeasureDemand> measures, std::int64_t ranks) {
    PlanInput in;
    in.block_bytes = shape.head_dim() * shape.hidden * 2;
    in.folded_block_bytes = 2 * in.block_bytes;
    in.shape = std::move(shape);
    in.measures = std::move(measures);
    in.ranks = ranks;
    in.budget = plenty;
    in.process_bytes = 100 << 20;
    return in;
}

/// gram's kind of measure, and with `all` one of all families.
inline PlanInput input_of(const Sizes& sizes, std::int64_t ranks, bool all = false) {
    const ModelShape shape = model_of(sizes);
    std::vector<MeasureDemand> measures{same_head(heads_of(shape))};
    if (all) measures.push_back(all_families(shape));
    return input_of(shape, std::move(measures), ranks);
}

}  // namespace geom::test
