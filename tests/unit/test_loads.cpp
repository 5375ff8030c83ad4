#include "plan/loads.hpp"

#include <gtest/gtest.h>

#include <map>

#include "support/plan_inputs.hpp"

using namespace geom;
using namespace geom::test;

namespace {

using Families = std::vector<WeightFamily>;
constexpr Sizes small{4, 4, 2, 8, 16, 32};

std::vector<RankLoads> loads_for(const ModelShape& shape, const std::vector<MeasureDemand>& measures,
                                 std::int64_t ranks) {
    return loads_of(shape, measures, demand_of(shape, measures), ranks);
}

std::vector<std::int64_t> rows_of(const std::vector<Load>& loads) {
    std::vector<std::int64_t> rows;
    for (const Load& load : loads) rows.push_back(load.row);
    return rows;
}

using Rows = std::vector<std::int64_t>;

TEST(Loads, the_layer_before_a_ranks_first_one_is_read_by_the_rank_itself) {
    const ModelShape shape = model_of(small);
    const auto loads = loads_for(shape, {of_layers("mlp", shape, {mlp_families()}, true)}, 2);
    // Row 0 has no unit: it is wanted as the row before row 1 alone.
    EXPECT_EQ(rows_of(loads[0].loads), (Rows{0, 1, 2}));
    EXPECT_EQ(rows_of(loads[1].loads), (Rows{2, 3}));
    EXPECT_FALSE(loads[0].loads[0].after_previous);
    EXPECT_TRUE(loads[0].loads[1].after_previous);
    EXPECT_TRUE(loads[0].loads[2].after_previous);
    for (const Load& load : loads[0].loads) EXPECT_TRUE(load.repeated.empty()) << "nobody else reads it";
    const Load& halo = loads[1].loads[0];
    EXPECT_TRUE(halo.visits.empty() && !halo.heads);
    EXPECT_EQ(halo.whole, mlp_families());
    EXPECT_EQ(halo.repeated, mlp_families());
    EXPECT_TRUE(loads[1].loads[1].after_previous);
}

TEST(Loads, a_layer_that_the_rank_has_anyway_is_its_own_halo) {
    const ModelShape shape = model_of(small);
    const auto loads = loads_for(shape, {same_head({0}), of_layers("mlp", shape, {mlp_families()}, true)}, 1);
    EXPECT_EQ(rows_of(loads[0].loads), (Rows{0, 1, 2, 3}));
    EXPECT_EQ(loads[0].loads[0].whole, mlp_families()) << "beside the rows of its heads";
    EXPECT_TRUE(loads[0].loads[0].heads);
}

TEST(Loads, a_halo_counts_what_its_owner_does_not_read) {
    // Of row 0 its owner reads heads alone: nothing of it is owed beside another layer.
    ModelShape shape = model_of(small);
    shape.layers.resize(2);
    const auto loads = loads_for(shape, {same_head({0}), steps(shape)}, 2);
    ASSERT_EQ(rows_of(loads[0].loads), (Rows{0}));
    ASSERT_EQ(rows_of(loads[1].loads), (Rows{0, 1}));
    EXPECT_EQ(loads[1].loads[0].whole.size(), 7U);
    EXPECT_EQ(loads[1].loads[0].repeated, (Families{WeightFamily::q_proj, WeightFamily::k_proj}));
}

TEST(Loads, what_its_owner_reads_in_a_rising_sweep_alone_is_not_counted_with_the_halo_again) {
    ModelShape shape = model_of(small);
    shape.layers.resize(2);
    MeasureDemand rising = walk(shape);
    rising.needs.together = {{WeightFamily::q_proj, WeightFamily::o_proj}};
    const auto loads = loads_for(shape, {rising, steps(shape)}, 2);
    ASSERT_EQ(rows_of(loads[1].loads), (Rows{0, 1}));
    EXPECT_EQ(loads[1].loads[0].repeated, (Families{WeightFamily::q_proj, WeightFamily::o_proj}));
}

TEST(Loads, a_divided_layer_brings_of_the_layer_before_what_each_rank_needs) {
    ModelShape shape = model_of(small);
    shape.layers.resize(2);
    const auto loads = loads_for(shape, {steps(shape)}, 4);
    Families seen;
    for (const RankLoads& rank : loads) {
        if (rank.loads.empty()) continue;
        ASSERT_EQ(rows_of(rank.loads), (Rows{0, 1}));
        EXPECT_EQ(rank.loads[0].whole, rank.loads[1].whole);
        EXPECT_TRUE(rank.loads[0].repeated.empty()) << "nobody else reads it";
        seen.insert(seen.end(), rank.loads[0].whole.begin(), rank.loads[0].whole.end());
    }
    EXPECT_EQ(seen.size(), 7U);
}

TEST(Loads, families_that_the_layer_before_lacks_are_not_asked_of_it) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of(small, 1, false);
    const auto loads = loads_for(shape, {steps(shape)}, 1);
    EXPECT_EQ(rows_of(loads[0].loads), (Rows{0, 1, 2, 3}));
    EXPECT_EQ(loads[0].loads[0].whole, mlp_families()) << "row 1 has no attention to lay beside that of row 0";
    EXPECT_EQ(loads[0].loads[1].whole, mlp_families());
}

TEST(Loads, layers_come_before_experts_and_experts_before_globals) {
    ModelShape shape = model_of(small);
    for (std::int64_t l = 0; l < 4; ++l) shape.layers[static_cast<std::size_t>(l)] = layer_of(small, l, true, 2);
    const auto loads = loads_for(shape, {same_head({0}), of_experts(shape), of_globals(shape)}, 2);
    for (const RankLoads& rank : loads) {
        EXPECT_TRUE(std::is_sorted(rank.loads.begin(), rank.loads.end(),
                                   [](const Load& a, const Load& b) { return a.of < b.of; }));
    }
    EXPECT_EQ(loads[0].loads.back().of, UnitOf::global);
}

// 7 experts of 9 MiB are in memory at a time, as in Qwen3-30B-A3B.
TEST(Loads, experts_of_a_layer_come_as_many_at_a_time_as_64_MiB_hold) {
    ModelShape shape = model_of({2, 4, 2, 8, 2048, 768});
    for (std::int64_t l = 0; l < 2; ++l)
        shape.layers[static_cast<std::size_t>(l)] = layer_of({2, 4, 2, 8, 2048, 768}, l, true, 16);
    ASSERT_EQ(experts_at_a_time(shape.at(0)), 7);
    auto demand = of_experts(shape);
    std::erase(demand.owed, Unit{"experts", UnitOf::expert, 0, 3});
    std::vector<Rows> seen;
    const auto loads = loads_for(shape, {demand}, 1);
    for (const Load& load : loads[0].loads) {
        ASSERT_EQ(load.visits.size(), 1U);
        ASSERT_EQ(load.visits[0].units.size(), load.experts.size());
        for (std::size_t i = 0; i < load.experts.size(); ++i)
            EXPECT_EQ(load.visits[0].units[i], (Unit{"experts", UnitOf::expert, load.row, load.experts[i]}));
        EXPECT_EQ(bytes_of(shape, load, {}, {}).memory, std::ssize(load.experts) * 3 * 2048 * 768 * 2);
        seen.push_back(load.experts);
    }
    const std::vector<Rows> wanted{{0, 1, 2, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14}, {15},
                                   {0, 1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12, 13},  {14, 15}};
    EXPECT_EQ(seen, wanted) << "of one layer alone, without those that are not owed";
}

TEST(Loads, one_expert_at_a_time_where_two_are_too_large) {
    EXPECT_EQ(experts_at_a_time(layer_of({1, 4, 2, 8, 4096, 14336}, 0, true, 8)), 1);
    EXPECT_EQ(experts_at_a_time(layer_of({1, 4, 2, 8, 16, 32}, 0, true, 8)), 8) << "no more than there are";
}

TEST(Loads, the_rank_with_a_global_has_fewer_layers) {
    ModelShape shape = model_of(small);
    while (shape.rows() < 12) shape.layers.push_back(layer_of(small, shape.rows()));
    shape.globals.resize(1);
    auto layers = all_families(shape), globals = of_globals(shape);
    layers.work = [](const ModelShape&, std::span<const Unit> units) { return Work{0, 1'000'000 * std::ssize(units)}; };
    globals.work = [](const ModelShape&, std::span<const Unit>) { return Work{0, 16'000'000}; };
    const auto loads = loads_for(shape, {layers, globals}, 2);  // a layer has four units: 48 + 16 = 32 + 32
    EXPECT_EQ(rows_of(loads[0].loads), (Rows{0, 1, 2, 3, -1}));
    EXPECT_EQ(rows_of(loads[1].loads), (Rows{4, 5, 6, 7, 8, 9, 10, 11}));
}

TEST(Loads, a_global_comes_in_strips_that_cover_it_once_on_one_rank) {
    ModelShape shape = model_of(small);
    shape.globals = {{WeightFamily::embed_tokens, -1, 151936, 5120, DType::bf16},
                     {WeightFamily::lm_head, -1, 151936, 5120, DType::bf16}};
    const auto loads = loads_for(shape, {of_globals(shape)}, 2);
    for (std::size_t r = 0; r < 2; ++r) {
        std::int64_t row = 0;
        for (const Load& load : loads[r].loads) {
            EXPECT_EQ(load.index, std::int64_t(r));
            EXPECT_EQ(load.rows.begin, row);
            row = load.rows.end;
            EXPECT_LE(bytes_of(shape, load, {}, {}).memory, 64 << 20);
            ASSERT_EQ(load.visits.size(), 1U);
        }
        EXPECT_EQ(row, 151936);
    }
}

TEST(Loads, of_a_rising_sweep_are_all_rows_in_turn_whatever_is_owed) {
    const ModelShape shape = model_of(small);
    auto rising = walk(shape);
    rising.owed = {{"walk", UnitOf::layer, 1, 0}};
    for (const std::int64_t ranks : {1, 2, 3, 9}) {
        Rows rows;
        for (const RankLoads& rank : loads_for(shape, {rising, all_families(shape)}, ranks)) {
            for (const Load& load : rank.rising) {
                rows.push_back(load.row);
                ASSERT_EQ(load.visits.size(), 1U);
                EXPECT_EQ(load.visits[0].units.size(), load.row == 1 ? 1U : 0U);
                EXPECT_EQ(load.whole.size(), 5U);
            }
        }
        EXPECT_EQ(rows, (Rows{0, 1, 2, 3})) << ranks << " ranks";
    }
}

TEST(Loads, strips_after_a_rising_sweep_are_dealt_out_and_the_first_one_has_the_unit) {
    ModelShape shape = model_of(small);
    shape.globals = {{WeightFamily::embed_tokens, -1, 200000, 64, DType::bf16}};
    auto rising = walk(shape);
    rising.needs.rising.after = 0;
    rising.owed.push_back({"walk", UnitOf::global, 0, 0});
    for (const std::int64_t ranks : {1, 2, 3, 9}) {
        const auto loads = loads_for(shape, {rising}, ranks);
        std::map<std::int64_t, std::int64_t> ends;  // by first row
        for (std::size_t r = 0; r < loads.size(); ++r) {
            for (const Load& load : loads[r].after) {
                EXPECT_EQ(load.of, UnitOf::global);
                EXPECT_LE(bytes_of(shape, load, {}, {}).memory, 8 << 20);
                EXPECT_EQ(load.rows.begin / 65536 % ranks, static_cast<std::int64_t>(r));
                ASSERT_EQ(load.visits.size(), 1U);
                EXPECT_EQ(load.visits[0].units.size(), load.rows.begin == 0 ? 1U : 0U);
                ends[load.rows.begin] = load.rows.end;
            }
            EXPECT_TRUE(loads[r].loads.empty()) << "the global is of this sweep alone";
        }
        EXPECT_EQ(ends, (std::map<std::int64_t, std::int64_t>{
                            {0, 65536}, {65536, 131072}, {131072, 196608}, {196608, 200000}}))
            << ranks << " ranks";
    }
}

TEST(Loads, of_a_rising_sweep_have_all_experts_where_it_says_so) {
    ModelShape shape = model_of(small);
    LayerShape& mixture = shape.layers[2];
    mixture.experts = 3;
    for (std::int64_t expert = 0; expert < 3; ++expert) {
        for (const WeightFamily family : mlp_families())
            mixture.weights.push_back({family, expert, 16, 16, DType::bf16});
    }
    const std::int64_t one = 3 * 16 * 16 * 2;
    auto rising = walk(shape);
    const auto without = loads_for(shape, {rising}, 1);
    rising.needs.rising.experts = true;
    const auto with = loads_for(shape, {rising}, 1);
    for (std::size_t i = 0; i < 4; ++i) {
        const std::int64_t more =
            bytes_of(shape, with[0].rising[i], {}, {}).stored - bytes_of(shape, without[0].rising[i], {}, {}).stored;
        EXPECT_EQ(more, i == 2 ? 3 * one : 0) << i;
    }
}

TEST(Loads, that_both_sweeps_share_are_the_same) {
    const ModelShape shape = model_of(small);
    auto loads = loads_for(shape, {walk(shape), same_head({0})}, 1)[0];
    share_loads(loads.loads, loads.rising);
    ASSERT_EQ(loads.loads.size(), loads.rising.size());
    for (std::size_t i = 0; i < loads.rising.size(); ++i) {
        EXPECT_TRUE(loads.rising[i].shared);
        EXPECT_EQ(loads.rising[i].whole, loads.loads[i].whole);
        EXPECT_EQ(loads.rising[i].heads, loads.loads[i].heads);
        EXPECT_EQ(loads.rising[i].whole.size(), 5U) << "keys are there as rows of heads";
    }
}

TEST(Loads, a_rising_sweep_leaves_out_layers_without_its_weights) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of(small, 1, false);
    shape.layers[3] = layer_of(small, 3, false);
    auto attention = walk(shape);
    attention.needs.together = {attention_families()};
    attention.owed = {{"walk", UnitOf::layer, 0, 0}, {"walk", UnitOf::layer, 2, 0}};
    const auto mlp = of_layers("mlp", shape, {mlp_families()});
    for (const std::int64_t ranks : {1, 2, 3, 9}) {
        Rows rows;
        for (const RankLoads& rank : loads_for(shape, {attention, mlp}, ranks)) {
            for (const Load& load : rank.rising) rows.push_back(load.row);
        }
        EXPECT_EQ(rows, (Rows{0, 2})) << ranks << " ranks";
    }
}

TEST(Loads, rows_of_heads_are_joined_where_they_touch) {
    const ModelShape shape = model_of(small);
    EXPECT_EQ(query_rows(shape, 0, Rows{0, 1, 3}), (std::vector<Range>{{0, 16}, {24, 32}}));
    EXPECT_EQ(key_rows(shape, 0, Rows{0, 1}), (std::vector<Range>{{0, 16}}));
    EXPECT_TRUE(query_rows(shape, 0, {}).empty());
}

TEST(Loads, rows_of_a_layer_with_other_keys_and_heads_are_its_own) {
    ModelShape shape = model_of(small);
    shape.layers[1] = layer_of({4, 4, 1, 12, 16, 32}, 1);
    shape.layers[2] = layer_of({4, 4, 4, 8, 16, 32}, 2);  // groups of one head now: two key heads a group of row 0
    ASSERT_EQ(shape.group_size(), 1);
    EXPECT_EQ(query_rows(shape, 1, Rows{1, 2}), (std::vector<Range>{{12, 36}}));
    EXPECT_EQ(key_rows(shape, 0, Rows{0, 1, 2}), (std::vector<Range>{{0, 16}})) << "groups 0 and 1 share a key head";
    EXPECT_EQ(key_rows(shape, 1, Rows{0, 3}), (std::vector<Range>{{0, 12}})) << "all share one";
    EXPECT_EQ(key_rows(shape, 2, Rows{0, 3}), (std::vector<Range>{{0, 8}, {24, 32}}));
}

TEST(Loads, bytes_are_those_of_whole_families_and_of_rows_of_heads) {
    ModelShape shape = model_of(small);
    Load load;
    load.row = 0;
    load.heads = true;
    const Rows heads{0, 1}, groups{0};
    EXPECT_EQ(bytes_of(shape, load, heads, groups).stored, (2 + 1) * 8 * 16 * 2);
    load.whole = {WeightFamily::q_proj, WeightFamily::v_proj};
    EXPECT_EQ(bytes_of(shape, load, heads, groups).stored, (4 + 2 + 1) * 8 * 16 * 2) << "q is there as a whole";
    shape.layers[0].weights[2].dtype = DType::f8_e4m3;
    const LoadBytes bytes = bytes_of(shape, load, heads, groups);
    EXPECT_EQ(bytes.stored, (4 * 2 + 2 * 1 + 1 * 2) * 8 * 16);
    EXPECT_EQ(bytes.memory, (4 * 2 + 2 * 4 + 1 * 2) * 8 * 16) << "f8 is f32 once in memory";
}

}  // namespace
