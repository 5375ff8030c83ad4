#include "plan/demand.hpp"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "support/error_of.hpp"
#include "support/plan_inputs.hpp"

using namespace geom;
using namespace geom::test;

namespace {

using Families = std::vector<WeightFamily>;
constexpr Sizes small{3, 4, 2, 8, 16, 32};

Demand demand_for(const ModelShape& shape, const std::vector<MeasureDemand>& measures) {
    return demand_of(shape, measures);
}

std::vector<Families> families_of(const std::vector<Part>& parts) {
    std::vector<Families> families;
    for (const Part& part : parts) families.push_back(part.whole);
    return families;
}

TEST(Demand, what_any_measure_needs_together_is_one_part) {
    const ModelShape shape = model_of(small);
    const auto pair = of_layers("pair", shape, {{WeightFamily::q_proj, WeightFamily::k_proj}});
    const auto each = of_layers("each", shape,
                                {{WeightFamily::q_proj},
                                 {WeightFamily::k_proj},
                                 {WeightFamily::v_proj},
                                 {WeightFamily::gate_proj},
                                 {WeightFamily::down_proj}});
    const auto mlp = of_layers("mlp", shape, {mlp_families()});
    const Demand demand = demand_for(shape, {pair, each, mlp});
    for (const auto& parts : demand.rows) {
        EXPECT_EQ(families_of(parts),
                  (std::vector<Families>{
                      {WeightFamily::q_proj, WeightFamily::k_proj}, {WeightFamily::v_proj}, mlp_families()}));
        EXPECT_EQ(parts[2].bytes, 3 * 32 * 16 * 2);
    }
    EXPECT_FALSE(demand.heads);
    EXPECT_FALSE(demand.rising);
}

TEST(Demand, sets_that_overlap_lie_together_however_long_the_chain) {
    const ModelShape shape = model_of(small);
    const auto chain = of_layers("chain", shape,
                                 {{WeightFamily::down_proj, WeightFamily::v_proj},
                                  {WeightFamily::q_proj, WeightFamily::v_proj},
                                  {WeightFamily::k_proj, WeightFamily::down_proj}});
    const Demand demand = demand_for(shape, {chain});
    ASSERT_EQ(demand.rows[1].size(), 1U);
    EXPECT_EQ(demand.rows[1][0].whole,
              (Families{WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj, WeightFamily::down_proj}));
    ASSERT_EQ(demand.rows[1][0].visits.size(), 1U);
    EXPECT_EQ(demand.rows[1][0].visits[0].units.size(), 3U);
}

TEST(Demand, of_heads_joins_queries_and_keys_of_layers_with_attention) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of(small, 1, false);
    const Demand demand = demand_for(shape, {same_head({0, 3})});
    EXPECT_TRUE(demand.heads);
    ASSERT_EQ(demand.rows[0].size(), 1U);
    EXPECT_TRUE(demand.rows[0][0].heads);
    EXPECT_TRUE(demand.rows[0][0].whole.empty());
    EXPECT_EQ(demand.rows[0][0].bytes, (4 + 2) * 8 * 16 * 2);
    EXPECT_TRUE(demand.rows[1].empty());
}

TEST(Demand, holds_what_is_owed_and_nothing_of_what_is_done) {
    const ModelShape shape = model_of(small);
    auto all = all_families(shape);
    std::erase_if(all.owed, [](const Unit& unit) { return unit.first != 1 || unit.second != 2; });
    auto steps_left = steps(shape);
    steps_left.owed.clear();
    const Demand demand = demand_for(shape, {all, steps_left, same_head({})});
    EXPECT_TRUE(demand.rows[0].empty());
    EXPECT_EQ(families_of(demand.rows[1]), (std::vector<Families>{{WeightFamily::up_proj}}));
    EXPECT_TRUE(demand.rows[1][0].previous.empty());
    EXPECT_TRUE(demand.rows[2].empty());
    EXPECT_FALSE(demand.heads);
}

TEST(Demand, of_experts_is_a_part_each_in_layers_that_have_them) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of(small, 1, true, 3);
    const Demand demand = demand_for(shape, {of_experts(shape)});
    EXPECT_TRUE(demand.rows[0].empty());
    ASSERT_EQ(demand.rows[1].size(), 3U);
    std::set<std::int64_t> experts;
    for (const Part& part : demand.rows[1]) {
        experts.insert(part.expert);
        EXPECT_EQ(part.whole, mlp_families());
        EXPECT_EQ(part.bytes, 3 * 32 * 16 * 2);
    }
    EXPECT_EQ(experts, (std::set<std::int64_t>{0, 1, 2}));
}

TEST(Demand, families_that_a_layer_lacks_are_left_out) {
    ModelShape shape = model_of(small);
    shape.layers[0].weights.erase(shape.layers[0].weights.begin() + 4);  // gate_proj
    const Demand demand = demand_for(shape, {of_layers("mlp", shape, {mlp_families()})});
    EXPECT_EQ(demand.rows[0][0].whole, (Families{WeightFamily::up_proj, WeightFamily::down_proj}));
    EXPECT_EQ(demand.rows[1][0].whole, mlp_families());
}

TEST(Demand, of_a_rising_sweep_is_every_layer_as_one_part) {
    const ModelShape shape = model_of(small);
    auto rising = walk(shape);
    rising.owed = {{"walk", UnitOf::layer, 2, 0}};  // the last layer cannot be had without those before it
    const Demand demand = demand_for(shape, {rising});
    EXPECT_TRUE(demand.rising);
    for (const auto& parts : demand.rows) {
        ASSERT_EQ(parts.size(), 1U);
        EXPECT_EQ(parts[0].bytes, 2 * (4 * 8 * 16 * 2) + 3 * 32 * 16 * 2) << "q, o, gate, up and down";
        EXPECT_TRUE(parts[0].visits.empty()) << "looked at in a sweep of its own";
    }
}

TEST(Demand, a_measure_with_a_rising_sweep_may_owe_more_than_layers) {
    const ModelShape shape = model_of(small);
    auto rising = walk(shape);
    rising.needs.globals = true;
    rising.needs.pairs = HeadPairs::same_head;
    rising.owed.push_back({"walk", UnitOf::global, 0, 0});
    rising.owed.push_back({"walk", UnitOf::head, 3, 0});
    const Demand demand = demand_for(shape, {rising});
    ASSERT_EQ(demand.globals.size(), 1U);
    EXPECT_EQ(demand.globals[0].visits.size(), 1U);
    EXPECT_TRUE(demand.heads);
}

TEST(Demand, visits_are_by_measure_with_their_units_in_order) {
    const ModelShape shape = model_of(small);
    const Demand demand = demand_for(shape, {of_layers("a", shape, {attention_families(), {WeightFamily::q_proj}}),
                                             same_head({1}), of_layers("c", shape, {{WeightFamily::k_proj}})});
    const std::vector<Visit>& visits = demand.rows[2][0].visits;
    ASSERT_EQ(visits.size(), 2U);
    EXPECT_EQ(visits[0].measure, 0);
    EXPECT_EQ(visits[0].units, (std::vector<Unit>{{"a", UnitOf::layer, 2, 0}, {"a", UnitOf::layer, 2, 1}}));
    EXPECT_EQ(visits[1].measure, 2);
}

TEST(Demand, of_units_that_do_not_fit_their_measure_is_a_bug) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of(small, 1, false);
    const auto refuses = [&](MeasureDemand measure, const Unit& unit, const char* why) {
        measure.owed = {unit};
        const std::string message = error_of([&] { demand_for(shape, {measure}); }, ExitCode::internal);
        EXPECT_TRUE(says(message, unit.measure, why));
    };
    const auto all = all_families(shape);
    refuses(all, {"all", UnitOf::layer, 3, 0}, "outside of the model");
    refuses(all, {"all", UnitOf::layer, -1, 0}, "outside of the model");
    refuses(all, {"all", UnitOf::layer, 0, 4}, "outside of the model");
    refuses(all, {"all", UnitOf::layer, 1, 0}, "none of these weights");
    refuses(all, {"all", UnitOf::head, 0, 0}, "do not say so");
    MeasureDemand attention_alone = walk(shape);
    attention_alone.needs.together = {attention_families()};
    refuses(attention_alone, {"walk", UnitOf::layer, 1, 0}, "none of these weights");
    refuses(all, {"all", UnitOf::global, 0, 0}, "do not say so");
    refuses(of_experts(shape), {"experts", UnitOf::expert, 0, 0}, "no such expert");
    refuses(of_experts(shape), {"experts", UnitOf::expert, 3, 0}, "outside of the model");
    refuses(of_globals(shape), {"globals", UnitOf::global, 1, 0}, "outside of the model");
    refuses(same_head({}), {"same", UnitOf::head, 4, 0}, "outside of the model");
    refuses(same_head({}), {"same", UnitOf::pair, 0, 0}, "do not say so");
    refuses(all_pairs(shape), {"pairs", UnitOf::pair, 0, 2}, "outside of the model");
}

// What all units of a measure read is what its parts demand, each row by at least one of them.
TEST(Demand, units_name_the_rows_they_are_computed_from) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of(small, 1, true, 3);
    const auto rows_of = [&](const MeasureDemand& measure) {
        std::set<std::tuple<std::int64_t, WeightFamily, std::int64_t, std::int64_t>> rows;
        for (const Unit& unit : measure.owed) {
            for (const WeightRows& read : rows_read(shape, measure.needs, unit)) {
                for (std::int64_t row = read.rows.begin; row < read.rows.end; ++row)
                    rows.emplace(read.row, read.family, read.expert, row);
            }
        }
        return std::ssize(rows);
    };
    EXPECT_EQ(rows_of(same_head({0, 1, 2, 3})), 3 * (4 + 2) * 8);
    EXPECT_EQ(rows_of(same_head({3})), 3 * (1 + 1) * 8);
    EXPECT_EQ(rows_of(of_experts(shape)), 3 * (32 + 32 + 16));
    EXPECT_EQ(rows_of(of_layers("mlp", shape, {mlp_families()})), 2 * (32 + 32 + 16)) << "of two dense layers";
    auto steps_of_last = steps(shape);
    std::erase_if(steps_of_last.owed, [](const Unit& unit) { return unit.first != 2; });
    ASSERT_TRUE(steps_of_last.needs.previous_layer);
    std::set<std::int64_t> rows;
    for (const WeightRows& read : rows_read(shape, steps_of_last.needs, steps_of_last.owed.front()))
        rows.insert(read.row);
    EXPECT_TRUE(rows.contains(2));
    EXPECT_FALSE(rows.contains(0));
}

TEST(Demand, a_strip_of_a_global_takes_64_MiB_of_memory_by_the_model_alone) {
    EXPECT_EQ(strip_rows({WeightFamily::embed_tokens, -1, 151936, 5120, DType::bf16}), (64 << 20) / (5120 * 2));
    EXPECT_EQ(strip_rows({WeightFamily::embed_tokens, -1, 151936, 5120, DType::f8_e4m3}), (64 << 20) / (5120 * 4));
    EXPECT_EQ(strip_rows({WeightFamily::embed_tokens, -1, 10, 16, DType::bf16}), 10) << "all of a small one";
    EXPECT_EQ(strip_rows({WeightFamily::embed_tokens, -1, 10, 1 << 26, DType::f64}), 1) << "a row at least";
}

}  // namespace
