#include "measures/power_law.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace geom {

namespace {

constexpr std::int64_t fewest = 10;

PowerLaw law_of(std::int64_t n, double sum_of_logs, double xmin) {
    if (n < 1 || !(sum_of_logs > 0)) return {};
    const double excess = static_cast<double>(n) / sum_of_logs;  // alpha - 1
    return {1 + excess, excess / std::sqrt(static_cast<double>(n)), xmin};
}

/// sup |S(x) - P(x)| over the n largest values, S their share that is at most x, P(x) = 1 - (x / xmin)^(1 - alpha);
/// or something above `enough` once it is above it. `logs` descending, the last of the n is that of xmin.
double distance(std::span<const double> logs, double alpha, double enough) {
    const std::size_t n = logs.size();
    const double share = 1 / static_cast<double>(n);
    double most = 0;
    for (std::size_t i = 0; i < n && most <= enough; ++i) {
        const double above = std::exp((1 - alpha) * (logs[i] - logs[n - 1]));  // 1 - P
        const double with = share * static_cast<double>(i + 1), without = share * static_cast<double>(i);
        most = std::max({most, std::abs(above - without), std::abs(with - above)});
    }
    return most;
}

}  // namespace

PowerLaw power_law_above(double xmin, std::span<const double> descending) {
    double sum = 0;
    std::int64_t n = 0;
    for (; n < std::ssize(descending) && descending[static_cast<std::size_t>(n)] >= xmin; ++n)
        sum += std::log(descending[static_cast<std::size_t>(n)] / xmin);
    return law_of(n, sum, xmin);
}

PowerLaw fit_power_law(std::span<const double> descending) {
    std::vector<double> logs;
    for (const double x : descending) {
        if (x > 0) logs.push_back(std::log(x));
    }
    PowerLaw best;
    double least = std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t n = 1; n <= std::ssize(logs); ++n) {
        const auto last = static_cast<std::size_t>(n - 1);
        sum += logs[last];
        const bool all_of_equals = last + 1 == logs.size() || descending[last + 1] < descending[last];
        if (n < fewest || !all_of_equals) continue;
        const PowerLaw law = law_of(n, sum - static_cast<double>(n) * logs[last], descending[last]);
        if (std::isnan(law.alpha)) continue;
        const double found = distance(std::span(logs).first(static_cast<std::size_t>(n)), law.alpha, least);
        if (found > least) continue;
        least = found;
        best = law;
    }
    return best;
}

}  // namespace geom
