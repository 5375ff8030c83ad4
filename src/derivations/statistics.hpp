// Means and quantiles that leave NaN out.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace geom {

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// Of what is not NaN; NaN of nothing.
class Mean {
public:
    void add(double value) {
        if (std::isnan(value)) return;
        sum_ += value;
        ++count_;
    }
    std::int64_t count() const { return count_; }
    double value() const { return count_ == 0 ? not_a_number : sum_ / static_cast<double>(count_); }

private:
    double sum_ = 0.0;
    std::int64_t count_ = 0;
};

inline double mean_of(std::span<const double> values) {
    Mean mean;
    for (const double value : values) mean.add(value);
    return mean.value();
}

struct Moments {
    double mean = not_a_number;
    double sd = not_a_number;  ///< of the population: divided by n
};

/// NaN for fewer than two values that are not NaN.
Moments moments_of(std::span<const double> values);

/// Linear between order statistics, `share` in [0, 1]; NaN of nothing.
double quantile_of(std::span<const double> values, double share);

}  // namespace geom
