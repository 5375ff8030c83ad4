// A power law fitted to the tail of a sample: p(x) ~ x^-alpha for x >= xmin.
// Clauset, Shalizi and Newman, SIAM Review 51 (2009).
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace geom {

/// NaN where there are not ten values to fit.
struct PowerLaw {
    double alpha = std::numeric_limits<double>::quiet_NaN();
    double standard_error = std::numeric_limits<double>::quiet_NaN();  ///< (alpha - 1) / sqrt n
    double xmin = std::numeric_limits<double>::quiet_NaN();
};

/// alpha = 1 + n / sum ln(x / xmin) over the n values that are not below xmin; `descending`: positive values.
PowerLaw power_law_above(double xmin, std::span<const double> descending);

/// The same with the xmin, of the values that leave at least ten, whose fit has the least Kolmogorov-Smirnov distance
/// from the sample; of equal distances the smallest xmin. Values that are not positive are left out.
PowerLaw fit_power_law(std::span<const double> descending);

}  // namespace geom
