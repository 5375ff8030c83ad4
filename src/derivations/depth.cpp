#include "derivations/depth.hpp"

#include <algorithm>
#include <cmath>

namespace geom {

namespace {

constexpr std::size_t fewest = 3;  // layers that have an early, a middle and a late third

/// The largest change times `sign`, of those above 0.
Step largest_step(std::span<const double> values, double sign) {
    Step largest;
    if (values.size() < fewest) return largest;
    double most = 0.0;
    for (std::size_t i = 0; i + 1 < values.size(); ++i) {
        const double change = values[i + 1] - values[i];
        if (!(sign * change > most)) continue;
        most = sign * change;
        largest = {change, static_cast<std::int64_t>(i)};
    }
    return largest;
}

}  // namespace

Distribution distribution_of(std::span<const double> values) {
    if (values.empty()) return {};
    Distribution d;
    d.count = std::ssize(values);
    d.mean = mean_of(values);
    d.median = quantile_of(values, 0.5);
    Mean square;
    for (const double value : values) square.add((value - d.mean) * (value - d.mean));
    d.variance = square.value();
    d.std = std::sqrt(d.variance);
    d.cv = d.std / std::abs(d.mean);
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    d.min = *least;
    d.max = *most;
    d.range = d.max - d.min;
    return d;
}

std::array<Distribution, 3> thirds_of(std::span<const double> values) {
    if (values.size() < fewest) return {};
    const std::size_t third = values.size() / 3;
    return {distribution_of(values.first(third)), distribution_of(values.subspan(third, third)),
            distribution_of(values.subspan(2 * third))};
}

const char* trend_of(const std::array<Distribution, 3>& thirds) {
    const double early = thirds[0].mean, middle = thirds[1].mean, late = thirds[2].mean;
    if (std::isnan(early)) return "";
    if (early > middle && middle > late) return "MONOTONE DOWN";
    if (early < middle && middle < late) return "MONOTONE UP";
    return middle < early && middle < late ? "U-SHAPE" : "OTHER";
}

Step largest_drop(std::span<const double> values) { return largest_step(values, -1.0); }
Step largest_jump(std::span<const double> values) { return largest_step(values, 1.0); }

}  // namespace geom
