#include "measures/spectrum.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace geom {

namespace {

double entropy_rank(std::span<const double> weights, double sum) {
    double entropy = 0;
    for (const double weight : weights) {
        const double p = weight / sum;
        if (weight > 0) entropy -= p * std::log(p);
    }
    return std::exp(entropy);
}

}  // namespace

SpectrumRanks ranks_of(std::span<const double> descending) {
    std::vector<double> squares(descending.size());
    std::transform(descending.begin(), descending.end(), squares.begin(), [](double x) { return x * x; });
    SpectrumRanks ranks;
    ranks.energy = std::accumulate(squares.rbegin(), squares.rend(), 0.0);
    if (descending[0] == 0) {
        ranks.eff_rank = ranks.eff_rank_energy = ranks.stable_rank = std::numeric_limits<double>::quiet_NaN();
        return ranks;
    }
    ranks.eff_rank = entropy_rank(descending, std::accumulate(descending.rbegin(), descending.rend(), 0.0));
    ranks.eff_rank_energy = entropy_rank(squares, ranks.energy);
    ranks.stable_rank = ranks.energy / squares[0];
    return ranks;
}

void order_symmetric_eigenvalues(std::span<double> values, double tie) {
    std::sort(values.begin(), values.end(),
              [](double a, double b) { return std::abs(a) != std::abs(b) ? std::abs(a) > std::abs(b) : a > b; });
    for (auto run = values.begin(); run != values.end();) {
        auto end = run + 1;
        while (end != values.end() && std::abs(*(end - 1)) - std::abs(*end) <= tie) ++end;
        std::stable_partition(run, end, [](double value) { return value > 0; });
        run = end;
    }
}

void order_eigenvalues(std::span<double> re, std::span<double> im, double tie) {
    struct Root {
        double re, im, magnitude;
    };
    std::vector<Root> roots;  // of a conjugate pair the one above the real axis
    for (std::size_t i = 0; i < re.size(); ++i) {
        if (im[i] >= 0) roots.push_back({re[i], im[i], std::hypot(re[i], im[i])});
    }
    std::sort(roots.begin(), roots.end(), [](const Root& a, const Root& b) {
        return a.magnitude != b.magnitude ? a.magnitude > b.magnitude : a.re > b.re;
    });
    for (auto run = roots.begin(); run != roots.end();) {
        auto end = run + 1;
        while (end != roots.end() && (end - 1)->magnitude - end->magnitude <= tie) ++end;
        std::stable_sort(run, end, [](const Root& a, const Root& b) { return a.re > b.re; });
        run = end;
    }
    std::size_t i = 0;
    for (const Root& root : roots) {
        re[i] = root.re;
        im[i++] = root.im;
        if (root.im == 0) continue;
        re[i] = root.re;
        im[i++] = -root.im;
    }
}

void restore_inertia(std::span<double> ascending, double noise) {
    const std::size_t half = ascending.size() / 2;
    for (std::size_t i = 0; i < half; ++i) {
        if (std::abs(ascending[i]) <= noise) ascending[i] = -std::abs(ascending[i]);
        double& mirror = ascending[half + i];
        if (std::abs(mirror) <= noise) mirror = std::abs(mirror);
    }
}

std::size_t leading_entry(std::span<const double> vector) {
    double largest = 0;
    for (const double x : vector) largest = std::max(largest, std::abs(x));
    const auto found =
        std::find_if(vector.begin(), vector.end(), [=](double x) { return std::abs(x) >= largest * (1 - 1e-10); });
    return static_cast<std::size_t>(found - vector.begin());
}

}  // namespace geom
