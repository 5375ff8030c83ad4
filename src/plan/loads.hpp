// What a rank has in its hands, one thing after the other: layers, the layer before its first one, experts, globals.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/range.hpp"
#include "plan/demand.hpp"

namespace geom {

/// What a rank has in its hands at a time.
struct Load {
    UnitOf of = UnitOf::layer;               ///< layer, expert or global
    std::int64_t row = -1;                   ///< of ModelShape::layers; -1 for a global
    std::int64_t index = -1;                 ///< the global
    std::vector<std::int64_t> experts = {};  ///< rising; of a layer: all, with all their families, or none
    Range rows;                              ///< of a global: a strip; the last one ends at its rows
    std::vector<WeightFamily> whole;         ///< families read whole, rising
    bool heads = false;                      ///< W_Q and W_K go to the owners of heads: at least the rows of the pass
    bool after_previous = false;             ///< the load before it is the row before, and is looked at beside it
    /// Families that are whole here for the next load alone, and that their owner reads as well: it counts them.
    std::vector<WeightFamily> repeated;
    std::vector<Visit> visits;
    bool shared = false;  ///< of a rising sweep: the same as the first sweep's load of that row
};

struct RankLoads {
    std::vector<Load> loads;   ///< in any order of rows: layers, then experts, then globals
    std::vector<Load> rising;  ///< layers that build on each other, of those with weights that are wanted; a row's
                               ///< visits may be without units
    std::vector<Load> after;   ///< its strips of what comes after the rising sweep; the first strip's visits have units
};

/// The loads of every rank. The layer before a rank's first one is read by the rank itself where a measure wants to see
/// it.
std::vector<RankLoads> loads_of(const ModelShape& shape, std::span<const MeasureDemand> measures, const Demand& demand,
                                std::int64_t ranks);

/// Layers are in memory once for both sweeps: what one of them wants of a row that both look at, the other loads too.
void share_loads(std::vector<Load>& loads, std::vector<Load>& rising);

struct LoadBytes {
    std::int64_t stored = 0;
    std::int64_t memory = 0;
};

/// What a load reads when the rows of these query heads and groups are wanted of W_Q and W_K (all rows of families that
/// are wanted whole).
LoadBytes bytes_of(const ModelShape& shape, const Load& load, std::span<const std::int64_t> heads,
                   std::span<const std::int64_t> groups);

/// Rows of W_Q in a layer that belong to these heads, rows of W_K that belong to these groups; rising, neighbours
/// joined.
std::vector<Range> query_rows(const ModelShape& shape, std::int64_t row, std::span<const std::int64_t> heads);
std::vector<Range> key_rows(const ModelShape& shape, std::int64_t row, std::span<const std::int64_t> groups);

}  // namespace geom
