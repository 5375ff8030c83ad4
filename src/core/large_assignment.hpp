// The best assignment of n things to n others for n of thousands: neurons of a layer to those of the next.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace geom {

/// A permutation and how far it is from the best: no permutation has a value beyond value + gap. Rounding aside
/// (n eps times the largest magnitude) the gap is closed.
struct LargeAssignment {
    std::vector<std::int32_t> column_of;  ///< [n]
    double value = 0.0;                   ///< sum of values[i, column_of[i]], in f64
    double gap = 0.0;                     ///< of the dual solution that proves it
};

/// Maximises the sum over rows of values[i, column_of[i]]; `values` is [n, n], row-major, finite.
///
///   1. each row's largest value, the diagonal before equals: where they lie in distinct columns that is it
///   2. else prices of columns, by an auction (Bertsekas 1988): rows bid for columns in turn, what a bid gives away
///      falls from the values' root mean square to 1e-4 of it. 20 to 130 looks at each row
///   3. each row's best column at these prices, first come, first served
///   4. rows left over: shortest augmenting paths with duals (Jonker and Volgenant 1987), short because prices are good
///
/// Sums are of f64; one thread. Takes assignment_bytes(n) beside the values. Throws Error(internal) when the sizes do
/// not fit or a value is not finite.
LargeAssignment best_large_assignment(std::span<const float> values, std::int64_t n);

std::int64_t assignment_bytes(std::int64_t n);

}  // namespace geom
