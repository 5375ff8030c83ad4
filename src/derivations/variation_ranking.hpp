// Which families of weights change least from a layer to the next, over a block of layers: from variation/residual.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/range.hpp"
#include "output/result_file.hpp"

namespace geom {

/// A family under a gauge, over the pairs of consecutive layers of a block; NaN left out.
struct FamilyVariation {
    std::string gauge, family;
    double mean = 0, least = 0, most = 0;
    double sd = 0;  ///< of the population
    std::int64_t pairs = 0;
    std::int64_t least_pair = 0, most_pair = 0;  ///< number of the first layer of the pair
};

/// By gauge, in the file's order, and from least to most mean; of pairs whose layers both lie in `block`. Families
/// without a residual there are left out. The file has variation/residual.
std::vector<FamilyVariation> rank_families(const ResultReader& file, Range block);

/// The block that the run was asked to summarise; its layers where it was not asked.
Range block_of(const ResultReader& file);

/// Throws Error(usage) where a block does not hold two layers of `layers`.
void check_block(Range block, Range layers);

}  // namespace geom
