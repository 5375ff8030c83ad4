#include "plan/ownership.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

using namespace geom;

namespace {

using Bytes = std::vector<std::vector<std::int64_t>>;

std::vector<std::int64_t> nothing(std::int64_t ranks) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(ranks), 0);
}

// Every part once, whole rows in contiguous runs where there are enough of them; a divided row on neighbouring ranks.
void expect_parts_are_owned_once(const Bytes& bytes, std::int64_t ranks, bool divide) {
    const auto owned = assign_parts(bytes, nothing(ranks), divide);
    ASSERT_EQ(std::ssize(owned), ranks);
    std::vector<std::pair<std::int64_t, std::int64_t>> all, wanted;
    std::map<std::int64_t, std::set<std::size_t>> ranks_of_row;
    std::int64_t row = 0;
    for (std::size_t r = 0; r < owned.size(); ++r) {
        for (const PartOf& part : owned[r]) {
            EXPECT_GE(part.row, row) << "rank " << r;
            EXPECT_LE(part.row, row + 1) << "rank " << r << ": a gap";
            row = part.row;
            all.emplace_back(part.row, part.part);
            ranks_of_row[part.row].insert(r);
        }
        EXPECT_TRUE(std::is_sorted(owned[r].begin(), owned[r].end(), [](const PartOf& a, const PartOf& b) {
            return std::pair(a.row, a.part) < std::pair(b.row, b.part);
        }));
    }
    std::sort(all.begin(), all.end());
    for (std::size_t l = 0; l < bytes.size(); ++l) {
        for (std::size_t p = 0; p < bytes[l].size(); ++p) wanted.emplace_back(l, p);
        const auto& of_row = ranks_of_row[static_cast<std::int64_t>(l)];
        EXPECT_EQ(*of_row.rbegin() - *of_row.begin() + 1, of_row.size());
        if (!divide || ranks <= std::ssize(bytes)) {
            EXPECT_EQ(of_row.size(), 1U);
        }
    }
    EXPECT_EQ(all, wanted);
}

TEST(Ownership, every_part_of_a_layer_has_one_owner_at_any_number_of_ranks) {
    const Bytes even(5, {4, 3, 2, 1}), single(7, {10}), ragged = {{9, 1}, {3}, {1, 1, 1, 1, 1, 7}, {2, 2}, {8}};
    for (const Bytes& bytes : {even, single, ragged}) {
        for (const bool divide : {true, false}) {
            for (const std::int64_t ranks : {1, 2, 3, 4, 5, 6, 7, 13, 40, 1024})
                expect_parts_are_owned_once(bytes, ranks, divide);
        }
    }
}

TEST(Ownership, layers_of_unequal_bytes_are_dealt_out_as_well_as_contiguous_runs_can) {
    const std::vector<std::int64_t> sizes = {9, 1, 1, 1, 7, 2, 2, 8, 1, 3};
    Bytes bytes;
    for (const std::int64_t size : sizes) bytes.push_back({size});
    const std::size_t layers = sizes.size();
    for (std::size_t ranks = 1; ranks <= layers; ++ranks) {
        std::int64_t largest = 0;
        for (const auto& parts : assign_parts(bytes, nothing(static_cast<std::int64_t>(ranks)), true)) {
            EXPECT_FALSE(parts.empty());
            std::int64_t sum = 0;
            for (const PartOf& part : parts) sum += sizes[static_cast<std::size_t>(part.row)];
            largest = std::max(largest, sum);
        }
        // best[r][l]: the smallest possible largest sum of the first l layers on r ranks, by dynamic programming.
        constexpr std::int64_t none = 1000;
        std::vector<std::vector<std::int64_t>> best(ranks + 1, std::vector<std::int64_t>(layers + 1, none));
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

std::vector<std::int64_t> lengths(const std::vector<std::vector<PartOf>>& owned) {
    std::vector<std::int64_t> lengths;
    for (const auto& parts : owned) lengths.push_back(std::ssize(parts));
    return lengths;
}

TEST(Ownership, who_has_something_to_do_already_gets_fewer_layers) {
    const Bytes layers(28, {10});
    EXPECT_EQ(lengths(assign_parts(layers, {60, 0}, true)), (std::vector<std::int64_t>{11, 17}));
    EXPECT_EQ(lengths(assign_parts(layers, {0, 60}, true)), (std::vector<std::int64_t>{17, 11}));
    EXPECT_EQ(lengths(assign_parts(Bytes(4, {3}), {6, 0}, true)), (std::vector<std::int64_t>{1, 3}));
    EXPECT_EQ(lengths(assign_parts(layers, {1000, 0, 0, 0}, true)), (std::vector<std::int64_t>{1, 9, 9, 9}))
        << "every rank has a layer, and what is too much for one does not make the others unequal";
}

TEST(Ownership, three_layers_of_equal_parts_go_to_three_three_and_two_of_eight_ranks) {
    std::map<std::int64_t, int> ranks_of_layer;
    for (const auto& parts : assign_parts(Bytes(3, {1, 1, 1, 1}), nothing(8), true)) {
        if (!parts.empty()) ++ranks_of_layer[parts.front().row];
    }
    EXPECT_EQ(ranks_of_layer, (std::map<std::int64_t, int>{{0, 3}, {1, 3}, {2, 2}}));
}

TEST(Ownership, ranks_beyond_the_parts_of_layers_load_nothing) {
    const auto owned = assign_parts(Bytes(2, {4, 1, 1, 1}), nothing(100), true);
    EXPECT_EQ(std::count_if(owned.begin(), owned.end(), [](const auto& parts) { return !parts.empty(); }), 8);
    const auto whole = assign_parts(Bytes(2, {4, 1, 1, 1}), nothing(100), false);
    EXPECT_EQ(std::count_if(whole.begin(), whole.end(), [](const auto& parts) { return !parts.empty(); }), 2);
}

TEST(Ownership, layers_of_which_nothing_is_wanted_are_nobodys) {
    for (const std::int64_t ranks : {1, 2, 3, 5, 8}) {
        std::vector<std::pair<std::int64_t, std::int64_t>> all;
        for (const auto& parts : assign_parts({{}, {5, 5}, {}, {}, {2}}, nothing(ranks), true)) {
            for (const PartOf& part : parts) all.emplace_back(part.row, part.part);
        }
        EXPECT_EQ(all, (std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 0}, {1, 1}, {4, 0}})) << ranks;
    }
    EXPECT_EQ(assign_parts({}, nothing(3), true), std::vector<std::vector<PartOf>>(3));
}

TEST(Ownership, what_is_left_goes_to_the_rank_with_the_least_to_do) {
    EXPECT_EQ(assign_rest({10, 4, 4}, {5, 0, 3}), (std::vector<std::int64_t>{1, 2, 0}));
    EXPECT_EQ(assign_rest({1, 1, 1}, {0, 0}), (std::vector<std::int64_t>{0, 1, 0})) << "the lowest of equals";
}

std::vector<PairBlock> three_groups_of_four() {
    return {{0, 0, {0, 1, 2, 3}}, {1, 1, {4, 5, 6, 7}}, {2, 2, {8, 9, 10, 11}}};
}

std::vector<std::int64_t> heads_in(const std::vector<std::vector<PairBlock>>& lists) {
    std::vector<std::int64_t> heads;
    for (const auto& blocks : lists) {
        for (const PairBlock& block : blocks) heads.insert(heads.end(), block.heads.begin(), block.heads.end());
    }
    return heads;
}

TEST(Ownership, whole_groups_go_to_ranks_while_there_are_enough_then_their_heads) {
    for (std::int64_t ranks = 1; ranks <= 20; ++ranks) {
        const auto owned = assign_blocks(three_groups_of_four(), ranks);
        ASSERT_EQ(std::ssize(owned), ranks);
        std::vector<std::int64_t> all(12);
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(heads_in(owned), all) << ranks << " ranks";
        std::size_t most = 0, pieces = 0;
        for (const auto& blocks : owned) {
            std::size_t heads = 0;
            for (const PairBlock& block : blocks) heads += block.heads.size();
            pieces += blocks.size();
            most = std::max(most, heads);
        }
        const std::int64_t whole = 4 * ((3 + ranks - 1) / ranks);
        EXPECT_EQ(std::int64_t(pieces), std::clamp<std::int64_t>(ranks, 3, 12)) << ranks << " ranks";
        // The groups with the fewest ranks decide: 3 groups on 8 ranks are cut into 3, 3 and 2.
        const std::int64_t divided =
            (4 + std::max<std::int64_t>(1, ranks / 3) - 1) / std::max<std::int64_t>(1, ranks / 3);
        EXPECT_EQ(std::int64_t(most), ranks <= 3 ? whole : divided) << ranks << " ranks";
    }
}

TEST(Ownership, a_single_pass_of_a_divided_group_holds_it_once) {
    // 3 groups of 4 heads in 4 passes: halves of groups.
    for (std::int64_t passes = 1; passes <= 12; ++passes) {
        const auto cut = cut_into_passes(three_groups_of_four(), passes);
        for (const auto& pass : cut) {
            std::set<std::int64_t> groups;
            for (const PairBlock& block : pass) EXPECT_TRUE(groups.insert(block.left).second) << passes << " passes";
        }
        std::vector<std::int64_t> all(12);
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(heads_in(cut), all) << passes << " passes";
    }
}

TEST(Ownership, as_many_passes_as_heads_hold_a_head_each_however_uneven_the_groups) {
    for (const auto& pass : cut_into_passes({{0, 0, {3}}, {1, 1, {4, 5, 6, 7}}, {5, 5, {20, 22}}}, 7)) {
        ASSERT_EQ(pass.size(), 1U);
        EXPECT_EQ(pass[0].heads.size(), 1U);
    }
}

TEST(Ownership, a_block_holds_its_left_heads_and_of_all_pairs_the_whole_right_group) {
    const std::vector<PairBlock> blocks = {{0, 2, {1}}, {0, 1, {2, 3}}, {1, 2, {4}}};
    EXPECT_EQ(held_for(blocks, 4, true),
              (std::vector<GroupShare>{{0, {1, 2, 3}}, {1, {4, 5, 6, 7}}, {2, {8, 9, 10, 11}}}));
    EXPECT_EQ(held_for({{0, 0, {1, 3}}}, 4, false), (std::vector<GroupShare>{{0, {1, 3}}}));
    EXPECT_EQ(held_for({{0, 0, {1, 3}}}, 4, true), (std::vector<GroupShare>{{0, {0, 1, 2, 3}}}));
}

}  // namespace
