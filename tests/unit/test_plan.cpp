#include "plan/plan.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "plan/ownership.hpp"
#include "support/error_of.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;

namespace {

constexpr std::int64_t plenty = std::int64_t{1} << 50;

struct Shape {
    std::int64_t layers, heads, kv_heads, head_dim, hidden, intermediate;
};
constexpr Shape qwen3_32b{64, 64, 8, 128, 5120, 25600};

// bf16 weights; all seven families, or W_Q and W_K alone.
PlanInput input_of(const Shape& s, std::int64_t ranks, bool all_families = false) {
    PlanInput in;
    in.layers = s.layers;
    in.heads = s.heads;
    in.kv_heads = s.kv_heads;
    in.head_dim = s.head_dim;
    in.hidden = s.hidden;
    const std::int64_t row = 2 * s.hidden, q = s.heads * s.head_dim * row, k = s.kv_heads * s.head_dim * row;
    const std::int64_t mlp = all_families ? s.intermediate * row : 0;
    const std::int64_t attention = all_families ? 2 * q + 2 * k : q + k;
    in.part_bytes.assign(static_cast<std::size_t>(s.layers), {attention, mlp, mlp, mlp});
    in.layer_memory.assign(static_cast<std::size_t>(s.layers), attention + 3 * mlp);
    in.head_blocks = true;
    in.block_bytes = in.stored_row_block = s.head_dim * row;
    in.all_weights_in_first_pass = all_families;
    for (std::int64_t h = 0; h < s.heads; ++h) in.pending_heads.push_back(h);
    in.ranks = ranks;
    in.budget = plenty;
    in.process_bytes = 100 << 20;
    in.scratch_bytes = 10 << 20;
    return in;
}

PlanInput qwen(std::int64_t ranks, bool all_families = false) { return input_of(qwen3_32b, ranks, all_families); }

std::int64_t group_of(const PlanInput& in, std::int64_t head) { return head / (in.heads / in.kv_heads); }

// A layer's parts that have bytes are loaded exactly once, others at most once; each rank's layers rise without a gap.
void expect_layers_are_owned_once(const Plan& plan) {
    std::map<std::pair<std::int64_t, std::size_t>, int> loaded;
    for (std::size_t r = 0; r < plan.ranks.size(); ++r) {
        const auto& loads = plan.ranks[r].loads;
        for (std::size_t i = 0; i < loads.size(); ++i) {
            if (i > 0) {
                EXPECT_EQ(loads[i].layer, loads[i - 1].layer + 1) << "rank " << r;
            }
            for (std::size_t p = 0; p < layer_part_count; ++p) loaded[{loads[i].layer, p}] += loads[i].parts[p] ? 1 : 0;
        }
    }
    for (std::int64_t l = 0; l < plan.input.layers; ++l) {
        for (std::size_t p = 0; p < layer_part_count; ++p) {
            const int times = loaded[{l, p}];
            const bool has_bytes = plan.input.part_bytes[static_cast<std::size_t>(l)][p] > 0;
            EXPECT_TRUE(times == 1 || (times == 0 && !has_bytes)) << "layer " << l << " part " << p << ": " << times;
        }
    }
}

// Every pending head is held by one rank in one pass; a pass of a rank names a group once, with its own heads, rising.
void expect_heads_are_owned_once(const Plan& plan) {
    std::vector<std::int64_t> held;
    for (const RankPlan& rank : plan.ranks) {
        ASSERT_EQ(std::ssize(rank.passes), plan.passes);
        for (const auto& pass : rank.passes) {
            std::set<std::int64_t> groups;
            for (const GroupShare& share : pass) {
                EXPECT_TRUE(groups.insert(share.group).second)
                    << "group " << share.group << " twice in a pass of a rank";
                EXPECT_FALSE(share.heads.empty());
                EXPECT_TRUE(std::is_sorted(share.heads.begin(), share.heads.end()));
                for (const std::int64_t head : share.heads) EXPECT_EQ(group_of(plan.input, head), share.group);
                held.insert(held.end(), share.heads.begin(), share.heads.end());
            }
        }
    }
    std::sort(held.begin(), held.end());
    EXPECT_EQ(held, plan.input.pending_heads);
}

using Transfer = std::tuple<bool, std::int64_t, std::int64_t>;  // key, head, layer

// Sends and receives of every pair of ranks agree in order, and bring each (layer, head) of a pass to its owner once.
void expect_exchange_is_complete(const Plan& plan) {
    const std::int64_t ranks = std::ssize(plan.ranks);
    for (std::int64_t pass = 0; pass < plan.passes; ++pass) {
        std::map<std::pair<std::int64_t, Transfer>, int> arrived;  // (owner, block)
        for (std::int64_t round = 0; round < plan.rounds(); ++round) {
            std::map<std::pair<std::int64_t, std::int64_t>, std::vector<Transfer>> sent, received;  // (from, to)
            for (std::int64_t r = 0; r < ranks; ++r) {
                for (const auto& b : plan.sends(pass, round, r)) sent[{r, b.peer}].emplace_back(b.key, b.head, b.layer);
                for (const auto& b : plan.receives(pass, round, r)) {
                    received[{b.peer, r}].emplace_back(b.key, b.head, b.layer);
                    ++arrived[{r, {b.key, b.head, b.layer}}];
                }
            }
            ASSERT_EQ(sent, received) << "pass " << pass << " round " << round;
        }
        std::map<std::pair<std::int64_t, Transfer>, int> wanted;
        for (std::int64_t r = 0; r < ranks; ++r) {
            for (const GroupShare& share :
                 plan.ranks[static_cast<std::size_t>(r)].passes[static_cast<std::size_t>(pass)]) {
                for (std::int64_t l = 0; l < plan.input.layers; ++l) {
                    wanted[{r, {true, share.group, l}}] = 1;
                    for (const std::int64_t head : share.heads) wanted[{r, {false, head, l}}] = 1;
                }
            }
        }
        ASSERT_EQ(arrived, wanted) << "pass " << pass;
    }
}

void expect_sound(const Plan& plan) {
    expect_layers_are_owned_once(plan);
    expect_heads_are_owned_once(plan);
    expect_exchange_is_complete(plan);
    EXPECT_LE(plan.peak_bytes(), plan.input.budget);
}

class PlanAtRanks : public ::testing::TestWithParam<std::tuple<std::int64_t, bool>> {};

TEST_P(PlanAtRanks, nothing_of_qwen3_32b_is_unowned_or_read_twice) {
    const auto [ranks, all_families] = GetParam();
    const auto start = std::chrono::steady_clock::now();
    const Plan plan = make_plan(qwen(ranks, all_families));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    EXPECT_LT(taken.count(), 2.0);
    EXPECT_EQ(plan.passes, 1);
    expect_sound(plan);
    std::int64_t bytes = 0;
    for (const auto& parts : plan.input.part_bytes) bytes = std::accumulate(parts.begin(), parts.end(), bytes);
    EXPECT_EQ(plan.bytes_read(), bytes) << "one pass reads every byte once";
    fmt::print(
        "P = {:4}, {:15}: imbalance of loading {:6.3f}, of products {:6.3f}; {:6.2f} GiB a rank; {:.3f} s to plan\n",
        ranks, all_families ? "seven families" : "W_Q and W_K", plan.load_imbalance(), plan.flops_imbalance(),
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

class SmallShapes : public ::testing::TestWithParam<std::tuple<Shape, std::int64_t>> {};

TEST_P(SmallShapes, are_planned_soundly_with_any_number_of_passes) {
    const auto& [shape, ranks] = GetParam();
    for (const bool all_families : {false, true}) {
        PlanInput in = input_of(shape, ranks, all_families);
        const Plan whole = make_plan(in);
        expect_sound(whole);
        std::int64_t passes = 1;
        // The largest budget that is too small for the passes so far leads to the next number of passes.
        for (Plan plan = whole;;) {
            in.budget = plan.peak_bytes() - 1;
            try {
                plan = make_plan(in);
            } catch (const Error& error) {
                EXPECT_EQ(error.code(), ExitCode::usage);
                break;
            }
            EXPECT_GT(plan.passes, passes);
            passes = plan.passes;
            expect_sound(plan);
            EXPECT_GE(plan.bytes_read(), whole.bytes_read());
            EXPECT_GE(plan.flops(), whole.flops());
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Plan, SmallShapes,
                         ::testing::Combine(::testing::Values(Shape{5, 12, 3, 8, 40, 64},  // three groups of four
                                                              Shape{3, 6, 1, 8, 16, 64},   // one key head
                                                              Shape{4, 5, 5, 8, 16, 64},   // a key head each
                                                              Shape{1, 4, 2, 8, 16, 64}),  // a single layer
                                            ::testing::Values<std::int64_t>(1, 2, 3, 4, 5, 7, 13, 40)));

TEST(Plan, a_single_pass_of_a_divided_group_holds_it_once) {
    // 3 groups of 4 heads in 4 passes: halves of groups, of which the first two passes hold two.
    const std::vector<GroupShare> shares = {{0, {0, 1, 2, 3}}, {1, {4, 5, 6, 7}}, {2, {8, 9, 10, 11}}};
    for (std::int64_t passes = 1; passes <= 12; ++passes) {
        std::vector<std::int64_t> heads;
        for (const auto& pass : cut_into_passes(shares, passes)) {
            std::set<std::int64_t> groups;
            for (const GroupShare& share : pass) {
                EXPECT_TRUE(groups.insert(share.group).second) << passes << " passes";
                heads.insert(heads.end(), share.heads.begin(), share.heads.end());
            }
        }
        std::vector<std::int64_t> all(12);
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(heads, all) << passes << " passes";
    }
}

TEST(Plan, as_many_passes_as_heads_hold_a_head_each_however_uneven_the_groups) {
    const std::vector<GroupShare> shares = {{0, {3}}, {1, {4, 5, 6, 7}}, {5, {20, 22}}};
    for (const auto& pass : cut_into_passes(shares, 7)) {
        ASSERT_EQ(pass.size(), 1U);
        EXPECT_EQ(pass[0].heads.size(), 1U);
    }
}

TEST(Plan, a_run_resumed_under_the_same_tight_budget_is_planned) {
    // What is left of the groups is uneven; the budget is that of a head at a time.
    PlanInput in = input_of({4, 8, 2, 8, 16, 64}, 1);
    in.process_bytes = in.scratch_bytes = 0;
    Plan tight = make_plan(in);
    while (tight.passes < in.heads) {
        in.budget = tight.peak_bytes() - 1;
        tight = make_plan(in);
    }
    in.budget = tight.peak_bytes();
    in.pending_heads = {0, 4, 5, 6, 7};
    expect_sound(make_plan(in));
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
    for (std::int64_t pass = 1; pass < plan.passes; ++pass) {
        rows += std::ssize(plan.heads_in_pass(pass)) + std::ssize(plan.groups_in_pass(pass));
    }
    EXPECT_EQ(plan.bytes_read(), whole.bytes_read() + rows * in.layers * in.stored_row_block);
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

// The same run on GPUs.
PlanInput on_gpus(std::int64_t ranks) {
    PlanInput in = qwen(ranks);
    in.device = true;
    in.device_budget = plenty;
    in.device_process_bytes = 32 << 20;
    in.layer_scratch_bytes = 20 << 20;
    return in;
}

TEST(Plan, on_gpus_keeps_blocks_there_and_layers_in_flight_in_both_memories) {
    const PlanInput in = on_gpus(2);
    const RankPlan rank = make_plan(in).ranks[0], cpu = make_plan(qwen(2)).ranks[0];
    EXPECT_EQ(rank.memory.blocks, 0);
    EXPECT_EQ(rank.memory.scratch, 0);
    EXPECT_EQ(rank.device.blocks, cpu.memory.blocks);
    EXPECT_EQ(rank.device.stream, cpu.memory.stream);
    EXPECT_EQ(rank.memory.stream, cpu.memory.stream);
    EXPECT_EQ(rank.device.staging, cpu.memory.staging);
    EXPECT_EQ(rank.device.scratch, in.layer_scratch_bytes);
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
    for (const std::int64_t ranks : {1, 2, 3, 7, 64}) {
        PlanInput in = qwen(ranks);
        in.pending_heads = {0, 1, 9, 17, 18, 19, 20, 21, 22, 23, 63};
        const Plan plan = make_plan(in);
        expect_sound(plan);
        EXPECT_EQ(plan.heads_in_pass(0), in.pending_heads);
        EXPECT_EQ(plan.groups_in_pass(0), (std::vector<std::int64_t>{0, 1, 2, 7}));
    }
}

TEST(Plan, a_resumed_run_without_heads_left_multiplies_nothing) {
    PlanInput in = qwen(3);
    in.pending_heads.clear();
    const Plan plan = make_plan(in);
    expect_sound(plan);
    EXPECT_EQ(plan.flops(), 0);
    EXPECT_EQ(plan.bytes_read(), 0) << "rows of no head are needed";
    EXPECT_DOUBLE_EQ(plan.flops_imbalance(), 1.0);
}

TEST(Plan, without_head_blocks_everything_is_read_once_and_nothing_is_exchanged) {
    PlanInput in = qwen(3, true);
    in.head_blocks = false;
    const Plan plan = make_plan(in);
    expect_layers_are_owned_once(plan);
    EXPECT_EQ(plan.bytes_read(), make_plan(qwen(1, true)).bytes_read());
    for (std::int64_t round = 0; round < plan.rounds(); ++round) EXPECT_TRUE(plan.sends(0, round, 0).empty());
}

TEST(Plan, layers_of_unequal_bytes_are_dealt_out_as_well_as_contiguous_runs_can) {
    const std::vector<std::int64_t> sizes = {9, 1, 1, 1, 7, 2, 2, 8, 1, 3};
    PartBytes bytes;
    for (const std::int64_t size : sizes) bytes.push_back({size, 0, 0, 0});
    const auto layers = static_cast<std::size_t>(std::ssize(sizes));
    for (std::size_t ranks = 1; ranks <= layers; ++ranks) {
        const auto owned = assign_layers(bytes, static_cast<std::int64_t>(ranks));
        std::int64_t largest = 0;
        for (const auto& loads : owned) {
            EXPECT_FALSE(loads.empty());
            std::int64_t sum = 0;
            for (const LoadItem& item : loads) sum += sizes[static_cast<std::size_t>(item.layer)];
            largest = std::max(largest, sum);
        }
        // best[r][l]: the smallest possible largest sum of the first l layers on r ranks, by dynamic programming.
        std::vector<std::vector<std::int64_t>> best(ranks + 1, std::vector<std::int64_t>(layers + 1, plenty));
        best[0][0] = 0;
        for (std::size_t r = 1; r <= ranks; ++r) {
            for (std::size_t l = 1; l <= layers; ++l) {
                std::int64_t sum = 0;
                for (std::size_t first = l; first-- > 0;) {
                    sum += sizes[first];
                    best[r][l] = std::min(best[r][l], std::max(best[r - 1][first], sum));
                }
            }
        }
        EXPECT_EQ(largest, best[ranks][layers]) << ranks << " ranks";
    }
}

TEST(Plan, three_layers_of_equal_parts_go_to_three_three_and_two_of_eight_ranks) {
    const auto owned = assign_layers(PartBytes(3, {1, 1, 1, 1}), 8);
    std::map<std::int64_t, int> ranks_of_layer;
    for (const auto& loads : owned) {
        for (const LoadItem& item : loads) ++ranks_of_layer[item.layer];
    }
    EXPECT_EQ(ranks_of_layer, (std::map<std::int64_t, int>{{0, 3}, {1, 3}, {2, 2}}));
}

TEST(Plan, ranks_beyond_the_parts_of_layers_load_nothing) {
    const auto owned = assign_layers(PartBytes(2, {4, 1, 1, 1}), 100);
    EXPECT_EQ(std::count_if(owned.begin(), owned.end(), [](const auto& loads) { return !loads.empty(); }), 8);
}

}  // namespace
