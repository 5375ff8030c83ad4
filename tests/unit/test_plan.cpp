#include "plan/plan.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <tuple>

#include "support/error_of.hpp"
#include "support/plan_checks.hpp"
#include "support/plan_inputs.hpp"

using namespace geom;
using namespace geom::test;

namespace {

PlanInput qwen(std::int64_t ranks, bool all = false) { return input_of(qwen3_32b, ranks, all); }

class PlanAtRanks : public ::testing::TestWithParam<std::tuple<std::int64_t, bool>> {};

TEST_P(PlanAtRanks, nothing_of_qwen3_32b_is_unowned_or_read_twice) {
    const auto [ranks, all] = GetParam();
    const auto start = std::chrono::steady_clock::now();
    const Plan plan = make_plan(qwen(ranks, all));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    EXPECT_LT(taken.count(), 2.0);
    EXPECT_EQ(plan.passes, 1);
    expect_sound(plan);
    std::int64_t bytes = 0;
    for (const LayerShape& layer : plan.input.shape.layers) {
        for (const WeightShape& weight : layer.weights) {
            const bool of_heads = weight.family == WeightFamily::q_proj || weight.family == WeightFamily::k_proj;
            if (all || of_heads) bytes += weight.bytes();
        }
    }
    EXPECT_EQ(plan.bytes_read(), bytes) << "one pass reads every byte once";
    fmt::print("P = {:4}, {:15}: imbalance of loading {:6.3f}, of products {:6.3f}; {:6.2f} GiB a rank; {:.3f} s\n",
               ranks, all ? "seven families" : "W_Q and W_K", plan.load_imbalance(), plan.flops_imbalance(),
               static_cast<double>(plan.peak_bytes()) / (1 << 30), taken.count());
    // Whole layers and whole groups are dealt out: the largest share is the mean, rounded up. Beyond 64 ranks a layer
    // is divided by its parts (the largest of four: W_Q, W_K, W_V and W_O in one), a group by its heads.
    const std::int64_t layers_a_rank = (64 + ranks - 1) / ranks;
    const auto mean_layers = 64.0 / static_cast<double>(ranks);
    if (ranks <= 64) {
        EXPECT_LE(plan.load_imbalance(), static_cast<double>(layers_a_rank) / mean_layers + 1e-9);
    }
    if (ranks <= 8) {
        const auto mean_groups = 8.0 / static_cast<double>(ranks);
        EXPECT_LE(plan.flops_imbalance(), std::ceil(mean_groups) / mean_groups + 1e-9);
    }
    if (ranks == 64) {
        EXPECT_DOUBLE_EQ(plan.flops_imbalance(), 1.0) << "a head a rank";
    }
}

INSTANTIATE_TEST_SUITE_P(Plan, PlanAtRanks,
                         ::testing::Combine(::testing::Values<std::int64_t>(1, 2, 3, 7, 64, 1024), ::testing::Bool()),
                         [](const auto& test) {
                             return fmt::format("{}_ranks_{}", std::get<0>(test.param),
                                                std::get<1>(test.param) ? "seven_families" : "gram_only");
                         });

TEST(Plan, products_are_counted_as_tiles_of_two_layers) {
    // (H + KV) L (L + 1) / 2 tiles of 2 hd^2 D flops: half of (H + KV) L^2 hd^2 D multiply-adds, and the diagonal.
    EXPECT_EQ(make_plan(qwen(1)).flops(), std::int64_t{72} * 64 * 65 / 2 * 2 * 128 * 128 * 5120);
}

TEST(Plan, a_group_divided_among_ranks_costs_its_key_products_once_a_rank) {
    EXPECT_EQ(make_plan(qwen(64)).flops(), std::int64_t{64 + 64} * 64 * 65 / 2 * 2 * 128 * 128 * 5120);
}

// Ever tighter budgets, until one is too small: every plan is sound, has more passes, and reads and computes no less.
void expect_sound_under_any_budget(PlanInput in) {
    const Plan whole = make_plan(in);
    expect_sound(whole);
    std::int64_t passes = 1;
    bool resident = whole.resident;
    for (Plan plan = whole;;) {
        in.budget = plan.peak_bytes() - 1;
        try {
            plan = make_plan(in);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::usage);
            break;
        }
        EXPECT_TRUE(plan.passes > passes || (plan.passes == passes && resident && !plan.resident));
        passes = plan.passes;
        resident = plan.resident;
        expect_sound(plan);
        EXPECT_GE(plan.bytes_read(), whole.bytes_read());
        EXPECT_GE(plan.flops(), whole.flops());
    }
}

class SmallShapes : public ::testing::TestWithParam<std::tuple<Sizes, std::int64_t>> {};

TEST_P(SmallShapes, are_planned_soundly_with_any_number_of_passes) {
    const auto& [sizes, ranks] = GetParam();
    for (const bool all : {false, true}) expect_sound_under_any_budget(input_of(sizes, ranks, all));
}

TEST_P(SmallShapes, are_planned_soundly_with_a_measure_of_every_kind) {
    const auto& [sizes, ranks] = GetParam();
    const ModelShape shape = model_of(sizes);
    PlanInput in = input_of(shape,
                            {same_head(heads_of(shape)), all_families(shape), steps(shape), walk(shape),
                             all_pairs(shape), of_globals(shape)},
                            ranks);
    in.process_bytes = 0;
    for (MeasureDemand& measure : in.measures) measure.memory = {};
    expect_sound_under_any_budget(in);
}

// With an input norm in all layers but the last; alone, beside stored blocks, and beside all else.
TEST_P(SmallShapes, are_planned_soundly_with_folded_blocks) {
    const auto& [sizes, ranks] = GetParam();
    ModelShape shape = model_of(sizes);
    for (LayerShape& layer : shape.layers) {
        const WeightShape norm{WeightFamily::input_ln, -1, 1, sizes.hidden, DType::bf16};
        if (layer.number + 1 < sizes.layers) layer.weights.push_back(norm);
    }
    const auto heads = heads_of(shape);
    for (std::vector<MeasureDemand> measures :
         {std::vector<MeasureDemand>{folded_heads(heads)},
          {folded_heads({heads.back()}), same_head(heads)},
          {same_head(heads), folded_heads(heads), all_families(shape), steps(shape), walk(shape), all_pairs(shape)}}) {
        for (MeasureDemand& measure : measures) measure.memory = {};
        PlanInput in = input_of(shape, std::move(measures), ranks);
        in.process_bytes = 0;
        expect_sound_under_any_budget(in);
    }
}

TEST(Plan, folded_blocks_take_memory_of_their_own_and_every_rank_gets_some_of_both_forms) {
    const ModelShape shape = model_of({5, 12, 3, 8, 40, 64});
    const auto heads = heads_of(shape);
    const Plan plain = make_plan(input_of(shape, {same_head(heads)}, 3));
    const Plan both = make_plan(input_of(shape, {same_head(heads), folded_heads(heads)}, 3));
    for (std::size_t r = 0; r < 3; ++r) {
        EXPECT_EQ(both.ranks[r].memory.blocks, 3 * plain.ranks[r].memory.blocks) << "elements of twice the bytes";
        EXPECT_EQ(both.ranks[r].passes[0].held.size(), 2U);
        EXPECT_EQ(both.ranks[r].units, (std::vector<std::int64_t>{4, 4}));
    }
    EXPECT_EQ(both.bytes_read(), plain.bytes_read()) << "both forms are made from what is read once";
}

INSTANTIATE_TEST_SUITE_P(Plan, SmallShapes,
                         ::testing::Combine(::testing::Values(Sizes{5, 12, 3, 8, 40, 64},  // three groups of four
                                                              Sizes{3, 6, 1, 8, 16, 64},   // one key head
                                                              Sizes{4, 5, 5, 8, 16, 64},   // a key head each
                                                              Sizes{1, 4, 2, 8, 16, 64}),  // a single layer
                                            ::testing::Values<std::int64_t>(1, 2, 3, 4, 5, 7, 13, 40)));

// Six layers: with attention of three kinds, without, with experts, with both an MLP of its own and experts.
ModelShape mixed_model() {
    ModelShape shape = model_of({6, 12, 4, 8, 16, 64});
    shape.layers[1] = layer_of({6, 12, 4, 8, 16, 64}, 1, false);
    shape.layers[2] = layer_of({6, 12, 2, 12, 16, 64}, 2);          // groups of six
    shape.layers[3] = layer_of({6, 12, 6, 4, 16, 64}, 3, true, 5);  // groups of two
    shape.layers[4] = layer_of({6, 12, 1, 8, 16, 32}, 4, false, 3);
    add_mlp(shape.layers[4], -1, 48, 16);
    std::stable_sort(shape.layers[4].weights.begin(), shape.layers[4].weights.end(),
                     [](const WeightShape& a, const WeightShape& b) { return a.expert < b.expert; });
    shape.globals.push_back({WeightFamily::lm_head, -1, 1000, 16, DType::f32});
    return shape;
}

std::vector<MeasureDemand> every_kind(const ModelShape& shape) {
    std::vector<MeasureDemand> all{all_families(shape), steps(shape),      of_experts(shape),         walk(shape),
                                   all_pairs(shape),    of_globals(shape), same_head(heads_of(shape))};
    all.back().memory = {};
    return all;
}

class MixedLayers : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(MixedLayers, are_planned_soundly_for_each_kind_of_measure_and_all_of_them) {
    const ModelShape shape = mixed_model();
    ASSERT_EQ(shape.group_size(), 1) << "of 3, 6 and 2";
    const auto kinds = every_kind(shape);
    for (const MeasureDemand& kind : kinds) {
        SCOPED_TRACE(kind.name);
        expect_sound_under_any_budget(input_of(shape, {kind}, GetParam()));
    }
    expect_sound_under_any_budget(input_of(shape, kinds, GetParam()));
}

// What is left after a kill, whatever it is: units are done by the bits of a number.
TEST_P(MixedLayers, are_planned_soundly_when_some_units_are_done) {
    const ModelShape shape = mixed_model();
    std::uint64_t state = 1;
    for (int run = 0; run < 40; ++run) {
        auto kinds = every_kind(shape);
        for (MeasureDemand& kind : kinds) {
            const std::uint64_t share_done = (state >> 40) % 5;  // none, a quarter, ..., all
            std::erase_if(kind.owed, [&](const Unit&) {
                state = state * 6364136223846793005U + 1442695040888963407U;
                return (state >> 33) % 4 < share_done;
            });
        }
        SCOPED_TRACE(run);
        expect_sound_under_any_budget(input_of(shape, kinds, GetParam()));
    }
}

TEST_P(MixedLayers, are_planned_soundly_on_gpus) {
    const ModelShape shape = mixed_model();
    PlanInput in = input_of(shape, every_kind(shape), GetParam());
    in.device = true;
    in.device_budget = plenty;
    expect_sound(make_plan(in));
}

INSTANTIATE_TEST_SUITE_P(Plan, MixedLayers, ::testing::Values<std::int64_t>(1, 2, 3, 6, 7, 20, 64, 1024));

TEST(Plan, a_model_without_attention_has_no_heads_to_exchange) {
    ModelShape shape = model_of({3, 4, 2, 8, 16, 64});
    for (std::int64_t l = 0; l < 3; ++l)
        shape.layers[static_cast<std::size_t>(l)] = layer_of({3, 4, 2, 8, 16, 64}, l, false);
    EXPECT_EQ(shape.head_dim(), 0);
    EXPECT_EQ(shape.group_size(), 1);
    const Plan plan = make_plan(input_of(shape, {all_families(shape), steps(shape)}, 2));
    expect_sound(plan);
    EXPECT_FALSE(plan.head_blocks);
}

TEST(Plan, a_run_resumed_under_the_same_tight_budget_is_planned) {
    // What is left of the groups is uneven; the budget is that of a head at a time.
    PlanInput in = input_of(Sizes{4, 8, 2, 8, 16, 64}, 1);
    in.process_bytes = 0;
    in.measures[0].memory = {};
    Plan tight = make_plan(in);
    while (tight.passes < in.shape.heads) {
        in.budget = tight.peak_bytes() - 1;
        tight = make_plan(in);
    }
    in.budget = tight.peak_bytes();
    std::erase_if(in.measures[0].owed, [](const Unit& unit) { return unit.first > 0 && unit.first < 4; });
    expect_sound(make_plan(in));
}

TEST(Plan, heads_that_are_left_of_a_group_are_looked_at_as_they_lie_in_memory) {
    // Heads 1 and 3 of group 0 are owed against their own group, all of them against group 1: 0 1 2 3 are held.
    const ModelShape shape = model_of({2, 8, 2, 8, 16, 64});
    MeasureDemand pairs = all_pairs(shape);
    std::erase_if(pairs.owed, [](const Unit& unit) { return unit.second == 0 && unit.first % 2 == 0; });
    const Plan plan = make_plan(input_of(shape, {same_head({1, 3}), pairs}, 1));
    expect_sound(plan);
    const auto& visits = plan.ranks[0].passes[0].visits;
    ASSERT_EQ(visits.size(), 4U);
    EXPECT_EQ(visits[0].heads, (std::vector<std::int64_t>{1}));
    EXPECT_EQ(visits[1].heads, (std::vector<std::int64_t>{3}));
    EXPECT_EQ(visits[2].heads, (std::vector<std::int64_t>{0, 1, 2, 3}));
    EXPECT_EQ(visits[3].heads, (std::vector<std::int64_t>{4, 5, 6, 7}));
}

TEST(Plan, more_passes_read_only_the_rows_that_they_need) {
    PlanInput in = qwen(1);
    in.budget = make_plan(in).peak_bytes() / 2;
    const Plan plan = make_plan(in);
    EXPECT_EQ(plan.passes, 3);  // half the blocks do not fit beside the layers in flight
    EXPECT_EQ(plan.bytes_read(), make_plan(qwen(1)).bytes_read()) << "whole groups: no row is needed twice";
    expect_sound(plan);
}

TEST(Plan, measures_of_all_weights_read_them_in_the_first_pass_and_only_query_and_key_rows_later) {
    PlanInput in = qwen(2, true);
    const Plan whole = make_plan(in);
    in.budget = 4 * (std::int64_t{1} << 30);
    const Plan plan = make_plan(in);
    ASSERT_GT(plan.passes, 1);
    std::int64_t rows = 0;
    for (std::int64_t pass = 1; pass < plan.passes; ++pass)
        rows += std::ssize(plan.heads_in_pass(pass)) + std::ssize(plan.groups_in_pass(pass));
    EXPECT_EQ(plan.bytes_read(), whole.bytes_read() + rows * in.shape.rows() * in.block_bytes);
    expect_sound(plan);
}

TEST(Plan, a_model_that_does_not_fit_a_laptop_at_once_is_planned_for_it) {
    PlanInput in = qwen(1);
    in.budget = std::int64_t{3} << 30;
    const Plan plan = make_plan(in);
    EXPECT_GT(plan.passes, 1);
    expect_sound(plan);
    fmt::print("Qwen3-32B's W_Q and W_K in 3 GiB: {} passes, {:.2f} GiB at its worst\n", plan.passes,
               static_cast<double>(plan.peak_bytes()) / (1 << 30));
}

TEST(Plan, a_budget_too_small_for_one_head_is_an_error_with_both_numbers) {
    PlanInput in = qwen(3);
    in.budget = 200 << 20;
    const std::string message = error_of([&] { make_plan(in); }, ExitCode::usage);
    EXPECT_TRUE(says(message, "--memory-budget", std::to_string(in.budget), "bytes are needed"));
    const std::string before = message.substr(0, message.find(" bytes are needed"));
    in.budget = std::stoll(before.substr(before.rfind(' ') + 1));
    EXPECT_EQ(make_plan(in).peak_bytes(), in.budget) << "the number it names is enough, and no more than that";
}

TEST(Plan, thousands_of_passes_are_planned_in_seconds) {
    // 64 groups of one head against each other: 2080 blocks on one rank.
    const ModelShape shape = model_of({80, 64, 64, 128, 8192, 28672});
    PlanInput in = input_of(shape, {all_pairs(shape)}, 1);
    const auto timed = [&](const auto& action) {
        const auto start = std::chrono::steady_clock::now();
        action();
        EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20.0);
    };
    in.budget = 1 << 20;
    std::string message;
    timed([&] { message = error_of([&] { make_plan(in); }, ExitCode::usage); });
    const std::string before = message.substr(0, message.find(" bytes are needed"));
    in.budget = std::stoll(before.substr(before.rfind(' ') + 1));
    timed([&] {
        const Plan plan = make_plan(in);
        EXPECT_EQ(plan.passes, 2080);
        EXPECT_EQ(plan.peak_bytes(), in.budget);
    });
}

// The same run on GPUs.
PlanInput on_gpus(std::int64_t ranks) {
    PlanInput in = qwen(ranks);
    in.device = true;
    in.device_budget = plenty;
    in.device_process_bytes = 32 << 20;
    in.measures[0].memory.layer = 20 << 20;
    return in;
}

TEST(Plan, on_gpus_keeps_blocks_there_and_layers_in_flight_in_both_memories) {
    const PlanInput in = on_gpus(2);
    const RankPlan rank = make_plan(in).ranks[0], cpu = make_plan(qwen(2)).ranks[0];
    EXPECT_EQ(rank.memory.blocks, 0);
    EXPECT_EQ(rank.memory.scratch, 0);
    EXPECT_EQ(rank.memory.products, 0);
    EXPECT_EQ(rank.device.blocks, cpu.memory.blocks);
    EXPECT_EQ(rank.device.stream, cpu.memory.stream);
    EXPECT_EQ(rank.memory.stream, cpu.memory.stream);
    EXPECT_EQ(rank.device.staging, cpu.memory.staging);
    EXPECT_EQ(rank.device.scratch, in.measures[0].memory.layer);
    EXPECT_EQ(rank.device.products, in.measures[0].memory.pair);
    EXPECT_EQ(rank.device.process, in.device_process_bytes);
    EXPECT_EQ(rank.device.results, 0);
    EXPECT_EQ(make_plan(qwen(2)).peak_device_bytes(), 0);
}

TEST(Plan, on_gpus_counts_host_memory_for_the_exchange_only_where_blocks_pass_through_it) {
    PlanInput in = on_gpus(3);
    const std::int64_t staged = make_plan(in).ranks[0].memory.staging;
    in.exchange_on_host = false;
    EXPECT_EQ(make_plan(in).ranks[0].memory.staging, 0);
    // of a round: what rank 0 sends of its layer, and its own heads' blocks of two other layers
    const Plan plan = make_plan(in);
    std::int64_t moved = 0;
    for (const BlockTransfer& block : plan.sends(0, 0, 0)) moved += block.peer != 0 ? in.block_bytes : 0;
    for (const BlockTransfer& block : plan.receives(0, 0, 0)) moved += block.peer != 0 ? in.block_bytes : 0;
    EXPECT_EQ(staged, moved);
}

TEST(Plan, a_small_gpu_gets_more_passes_and_a_too_small_one_is_named) {
    PlanInput in = on_gpus(1);
    in.device_budget = std::int64_t{2} << 30;
    const Plan plan = make_plan(in);
    EXPECT_GT(plan.passes, 1);
    EXPECT_LE(plan.peak_device_bytes(), in.device_budget);
    expect_sound(plan);
    in.device_budget = 100 << 20;
    const std::string message = error_of([&] { make_plan(in); }, ExitCode::usage);
    EXPECT_TRUE(says(message, "of GPU memory", std::to_string(in.device_budget), "bytes are needed"));
}

TEST(Plan, a_resumed_run_assigns_the_heads_that_are_left) {
    const std::vector<std::int64_t> left = {0, 1, 9, 17, 18, 19, 20, 21, 22, 23, 63};
    for (const std::int64_t ranks : {1, 2, 3, 7, 64}) {
        PlanInput in = qwen(ranks);
        in.measures = {same_head(left)};
        const Plan plan = make_plan(in);
        expect_sound(plan);
        EXPECT_EQ(plan.heads_in_pass(0), left);
        EXPECT_EQ(plan.groups_in_pass(0), (std::vector<std::int64_t>{0, 1, 2, 7}));
    }
}

TEST(Plan, a_resumed_run_without_heads_left_multiplies_nothing) {
    PlanInput in = qwen(3);
    in.measures = {same_head({})};
    const Plan plan = make_plan(in);
    expect_sound(plan);
    EXPECT_FALSE(plan.head_blocks);
    EXPECT_EQ(plan.flops(), 0);
    EXPECT_EQ(plan.bytes_read(), 0) << "rows of no head are needed";
    EXPECT_DOUBLE_EQ(plan.flops_imbalance(), 1.0);
}

TEST(Plan, without_head_blocks_everything_is_read_once_and_nothing_is_exchanged) {
    PlanInput in = qwen(3, true);
    in.measures.erase(in.measures.begin());
    const Plan plan = make_plan(in);
    expect_sound(plan);
    EXPECT_EQ(plan.bytes_read(), make_plan(qwen(1, true)).bytes_read());
    for (std::int64_t round = 0; round < plan.rounds(0); ++round) {
        EXPECT_FALSE(plan.exchanges(0, round));
        EXPECT_TRUE(plan.sends(0, round, 0).empty());
    }
}

}  // namespace
