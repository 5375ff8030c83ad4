#include "measures/marchenko_pastur.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace geom {

// Eigenvalues x of A A^T / N (entries of variance 1, c = M/N <= 1) have the density
//     sqrt((x+ - x)(x - x-)) / (2 pi c x) dx,   x+- = (1 +- sqrt c)^2.
// With x = 1 + c + 2 sqrt(c) cos t it is 2 sin^2(t) / (pi x) dt on [0, pi]: periodic, so the midpoint rule converges
// fast. With s = sqrt x the entropy is ln(M E[s]) - E[s ln s] / E[s].
double marchenko_pastur_eff_rank(std::int64_t rows, std::int64_t cols) {
    constexpr int nodes = 1 << 12;
    const auto smaller = static_cast<double>(std::min(rows, cols)), larger = static_cast<double>(std::max(rows, cols));
    const double c = smaller / larger;
    double mean = 0, mean_log = 0;
    for (int i = 0; i < nodes; ++i) {
        const double t = std::numbers::pi * (i + 0.5) / nodes;
        const double x = 1 + c + 2 * std::sqrt(c) * std::cos(t), sine = std::sin(t);
        if (x <= 0) continue;
        const double weight = 2 * sine * sine / (x * nodes), s = std::sqrt(x);
        mean += weight * s;
        mean_log += weight * s * std::log(s);
    }
    return smaller * mean * std::exp(-mean_log / mean);
}

// With k outliers taken away, what is left of noise is as of (M - k) x (N - k) entries. Johnstone: its largest
// eigenvalue is (sqrt(N - 1) + sqrt(M))^2 + TW (sqrt(N - 1) + sqrt(M)) (1/sqrt(N - 1) + 1/sqrt(M))^(1/3) times the
// variance, TW after Tracy and Widom for real entries.
std::int64_t marchenko_pastur_outliers(std::span<const double> squares, std::int64_t rows, std::int64_t cols) {
    constexpr double tracy_widom_999 = 3.2724;  // 99.9% quantile, beta = 1
    const std::int64_t smaller = std::min(rows, cols), larger = std::max(rows, cols);
    std::int64_t outliers = 0;
    while (outliers < smaller && larger - outliers > 1) {
        const auto m = static_cast<double>(smaller - outliers), n = static_cast<double>(larger - outliers);
        double sum = 0;
        for (std::int64_t i = smaller; i > outliers; --i) sum += squares[static_cast<std::size_t>(i - 1)];
        const double a = std::sqrt(n - 1), b = std::sqrt(m), variance = sum / (m * n);
        const double edge = (a + b) * (a + b) + tracy_widom_999 * (a + b) * std::cbrt(1 / a + 1 / b);
        const auto above = std::partition_point(squares.begin(), squares.end(),
                                                [&](double square) { return square > variance * edge; }) -
                           squares.begin();
        if (above <= outliers) break;
        outliers = above;
    }
    return outliers;
}

}  // namespace geom
