// Who owns what: parts of layers for loading, blocks of head pairs for products. Pure integers, the same on every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "core/range.hpp"

namespace geom {

/// A part of a layer: its place in the lists that assign_parts was given.
struct PartOf {
    std::int64_t row = 0;
    std::int64_t part = 0;
    friend bool operator==(const PartOf&, const PartOf&) = default;
};

/// The parts of every rank, by row, given what every part of every row costs, and what every rank has to do besides.
///
/// With at most as many ranks as rows each gets a contiguous run of rows, such that the largest sum of a rank is as
/// small as contiguous runs allow; every rank gets a row. With 4 rows of cost 3 on 2 ranks, the first of which has 6
/// already, they get 1 and 3. With more ranks, a row's parts go to as many of its ranks as
/// it has parts (3 rows of four equal parts on 8 ranks: 3, 3, 2 ranks), unless it is not to be divided; ranks beyond
/// that get nothing.
std::vector<std::vector<PartOf>> assign_parts(const std::vector<std::vector<std::int64_t>>& costs,
                                              const std::vector<std::int64_t>& held, bool divide_rows);

/// Of each of these things, after what every rank has already: the rank with the least to do, the lowest of equals.
std::vector<std::int64_t> assign_rest(const std::vector<std::int64_t>& costs, std::vector<std::int64_t> held);

/// How head blocks are held: W_Q and W_K as stored, or folded, times the weights of the norm before them (their
/// columns').
enum class BlockForm : std::uint8_t { stored, folded };

/// Query heads of one key/value group that a rank holds.
struct GroupShare {
    std::int64_t group = 0;
    std::vector<std::int64_t> heads;  ///< rising
    BlockForm form = BlockForm::stored;
    friend bool operator==(const GroupShare&, const GroupShare&) = default;
};

/// Query heads of one group against all query heads of another, or of the same.
struct PairBlock {
    std::int64_t left = 0;            ///< group
    std::int64_t right = 0;           ///< group, not below left
    std::vector<std::int64_t> heads;  ///< of the left group, rising
    BlockForm form = BlockForm::stored;
    friend bool operator==(const PairBlock&, const PairBlock&) = default;
};

/// The blocks of every rank, from a list in the order of its groups. Whole blocks first, in contiguous runs; with more
/// ranks than blocks, a block's heads are divided (the products of keys are then computed by each of its ranks); ranks
/// beyond the heads get nothing.
std::vector<std::vector<PairBlock>> assign_blocks(const std::vector<PairBlock>& blocks, std::int64_t ranks);

/// A rank's blocks cut into `passes` that are held one after the other: whole blocks while there are enough, else
/// pieces of one block a pass, of as few heads as the passes allow: a head a pass when there are as many passes as
/// heads. Passes at the end may be empty.
std::vector<std::vector<PairBlock>> cut_into_passes(const std::vector<PairBlock>& blocks, std::int64_t passes);

/// What has to be in memory for these blocks, all of one form, by group: the left heads of each, and all `group_size`
/// heads of a group that is another block's right side or its own where `all_pairs`.
std::vector<GroupShare> held_for(const std::vector<PairBlock>& blocks, std::int64_t group_size, bool all_pairs);

}  // namespace geom
