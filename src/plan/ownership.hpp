// Who owns what: layers for loading, query heads for gram and match. Pure integers, the same on every rank.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/range.hpp"

namespace geom {

/// Parts of a layer that are loaded together; a layer is divided among ranks by parts only.
enum class LayerPart : std::uint8_t { attention, gate, up, down };
inline constexpr int layer_part_count = 4;

/// Bytes that are read of each part of each layer.
using PartBytes = std::vector<std::array<std::int64_t, layer_part_count>>;

/// A layer, or some parts of one, that a rank loads.
struct LoadItem {
    std::int64_t layer = 0;
    std::array<bool, layer_part_count> parts = {true, true, true, true};

    bool has(LayerPart part) const noexcept { return parts[static_cast<std::size_t>(part)]; }
};

/// What every rank loads, in the order in which it loads it.
///
/// With at most as many ranks as layers each gets a contiguous run, such that the largest sum of bytes is as small as
/// contiguous runs allow; every rank gets a layer. With more ranks, a layer's non-empty parts go to up to four ranks
/// (3 layers of equal parts on 8 ranks: 3, 3, 2 ranks); ranks beyond that load nothing.
std::vector<std::vector<LoadItem>> assign_layers(const PartBytes& bytes, std::int64_t ranks);

/// Query heads of one key/value group that a rank holds.
struct GroupShare {
    std::int64_t group = 0;
    std::vector<std::int64_t> heads;  ///< rising
};

/// The query heads of every rank. Whole groups first, in contiguous runs; with more ranks than groups, a group's heads
/// are divided (its key products are then computed by each of its ranks); ranks beyond the heads hold nothing.
/// `pending` lists the heads to assign, rising (all H, or what a resumed run still owes).
std::vector<std::vector<GroupShare>> assign_heads(std::int64_t heads, std::int64_t kv_heads,
                                                  const std::vector<std::int64_t>& pending, std::int64_t ranks);

/// A rank's shares cut into `passes` that are held one after the other: whole groups while there are enough, else
/// pieces of one group a pass, of as few heads as the passes allow: a head a pass when there are as many passes as
/// heads. Passes at the end may be empty.
std::vector<std::vector<GroupShare>> cut_into_passes(const std::vector<GroupShare>& shares, std::int64_t passes);

}  // namespace geom
