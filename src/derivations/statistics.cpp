#include "derivations/statistics.hpp"

#include <algorithm>
#include <vector>

namespace geom {

Moments moments_of(std::span<const double> values) {
    Mean mean, square;
    for (const double value : values) mean.add(value);
    if (mean.count() < 2) return {};
    for (const double value : values) square.add((value - mean.value()) * (value - mean.value()));
    return {mean.value(), std::sqrt(square.value())};
}

double quantile_of(std::span<const double> values, double share) {
    std::vector<double> rising;
    std::copy_if(values.begin(), values.end(), std::back_inserter(rising),
                 [](double value) { return !std::isnan(value); });
    if (rising.empty()) return not_a_number;
    std::sort(rising.begin(), rising.end());
    const double place = share * static_cast<double>(rising.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, rising.size() - 1);
    return rising[below] + (place - static_cast<double>(below)) * (rising[above] - rising[below]);
}

}  // namespace geom
