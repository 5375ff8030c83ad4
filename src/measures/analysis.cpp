#include "measures/analysis.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// The mean of what is not NaN; NaN of nothing.
class Mean {
public:
    void add(double value) {
        if (std::isnan(value)) return;
        sum_ += value;
        ++count_;
    }
    double value() const { return count_ == 0 ? not_a_number : sum_ / static_cast<double>(count_); }

private:
    double sum_ = 0.0;
    std::int64_t count_ = 0;
};

}  // namespace

Cosines cosines_of(std::span<const double> gram, std::int64_t layers, std::int64_t heads) {
    if (static_cast<std::int64_t>(gram.size()) != layers * layers * heads) {
        throw Error(ExitCode::internal,
                    fmt::format("gram has {} elements, not {} x {} x {}", gram.size(), layers, layers, heads));
    }
    const auto at = [&](std::int64_t l, std::int64_t m, std::int64_t h) {
        return static_cast<std::size_t>((l * layers + m) * heads + h);
    };
    Cosines result{layers, heads, std::vector<double>(gram.size()), {}};
    for (std::int64_t l = 0; l < layers; ++l) {
        for (std::int64_t m = 0; m < layers; ++m) {
            Mean mean;
            for (std::int64_t h = 0; h < heads; ++h) {
                // Roots apart: the product of two squared norms could overflow or vanish.
                const double norms = std::sqrt(gram[at(l, l, h)]) * std::sqrt(gram[at(m, m, h)]);
                const double cosine = norms > 0.0 ? gram[at(l, m, h)] / norms : not_a_number;
                result.cos[at(l, m, h)] = cosine;
                mean.add(cosine);
            }
            result.cos_mean.push_back(mean.value());
        }
    }
    return result;
}

std::vector<Variable> analysis_variables() {
    return {{"analysis",
             "cos",
             {"layer", "layer_b", "head"},
             ValueType::f64,
             "cosine of the QK operators of two layers, same head",
             "1",
             "NaN where one of the operators is zero"},
            {"analysis",
             "cos_mean",
             {"layer", "layer_b"},
             ValueType::f64,
             "mean of cos over heads",
             "1",
             "NaN where every head has a zero operator in one of the layers"}};
}

std::vector<Slab> to_slabs(const Cosines& cosines, const Schema& schema) {
    return {whole_slab(schema, "analysis/cos", cosines.cos), whole_slab(schema, "analysis/cos_mean", cosines.cos_mean)};
}

double mean_adjacent_cosine(const Cosines& cosines) {
    Mean mean;
    for (std::int64_t l = 0; l + 1 < cosines.layers; ++l)
        mean.add(cosines.cos_mean[static_cast<std::size_t>(l * cosines.layers + l + 1)]);
    return mean.value();
}

double mean_pair_cosine(const Cosines& cosines) {
    Mean mean;
    for (std::int64_t l = 0; l < cosines.layers; ++l) {
        for (std::int64_t m = l + 1; m < cosines.layers; ++m)
            mean.add(cosines.cos_mean[static_cast<std::size_t>(l * cosines.layers + m)]);
    }
    return mean.value();
}

}  // namespace geom
