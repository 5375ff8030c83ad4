// A number of every layer, from the first layer to the last: how it is distributed, and how it changes with depth.
// Values are finite and in the order of layers; layers that have none are left out before.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "derivations/statistics.hpp"

namespace geom {

/// All NaN for no values.
struct Distribution {
    std::int64_t count = 0;
    double mean = not_a_number;
    double median = not_a_number;
    double std = not_a_number;  ///< of the population: divided by count
    double variance = not_a_number;
    double cv = not_a_number;  ///< std / |mean|
    double min = not_a_number;
    double max = not_a_number;
    double range = not_a_number;
};
Distribution distribution_of(std::span<const double> values);

/// The first n div 3 of n values, as many after them, and the rest.
///
///     n = 8   early 0 1   middle 2 3   late 4 5 6 7
///
/// Nothing is in any of them where n < 3.
std::array<Distribution, 3> thirds_of(std::span<const double> values);

/// "U-SHAPE" (the middle below both), "MONOTONE DOWN", "MONOTONE UP", "OTHER", from the means of the thirds; "" where
/// there are none.
const char* trend_of(const std::array<Distribution, 3>& thirds);

/// A change from a value to the one after it.
struct Step {
    double change = not_a_number;  ///< later minus earlier
    std::int64_t from = -1;        ///< index of the earlier one
};
/// The most negative and the most positive change, the first of equals; none where nothing falls, or nothing rises, or
/// there are fewer than three values.
Step largest_drop(std::span<const double> values);
Step largest_jump(std::span<const double> values);

}  // namespace geom
