// The best assignment of n things to n others, exactly; and of query heads to query heads as grouped-query attention
// allows it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace geom {

/// A permutation of largest value and its proof: row_dual[i] + column_dual[j] >= values[i, j], equal where matched.
struct Assignment {
    std::vector<std::int64_t> column_of;  ///< [n]
    double value = 0.0;                   ///< sum of values[i, column_of[i]]
    std::vector<double> row_dual, column_dual;
};

/// Maximises the sum over rows of values[i, column_of[i]]; `values` is [n, n], row-major. Shortest augmenting paths
/// with duals, O(n^3) (Jonker and Volgenant 1987). Of equal paths the one that ends at the least column is taken.
/// Throws Error(internal) when the sizes do not fit or a value is not finite.
Assignment best_assignment(std::span<const double> values, std::int64_t n);

/// Heads of a layer to heads of another. `values` is [H, H]; heads g G .. (g+1) G - 1 share a key head and stay
/// together:
///
///   values[H, H] = blocks of G x G    ->  the best assignment of each block
///   KV x KV values of those           ->  the best assignment of groups, and inside each the block's own
///
/// Returns column_of [H]. Throws Error(internal) when the sizes do not fit or a value is not finite.
std::vector<std::int64_t> nested_assignment(std::span<const double> values, std::int64_t heads,
                                            std::int64_t group_size);

}  // namespace geom
