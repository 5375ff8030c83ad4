#include "derivations/analysis.hpp"

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

Schema declare_analysis(const Schema& present) {
    const std::int64_t gram = present.find("gram/gram");
    if (gram < 0) return {};
    Schema schema;
    for (const char* dim : {"layer", "layer_b"}) {
        Scale scale = present.scale_of(present.variables[static_cast<std::size_t>(gram)], dim);
        scale.group = "analysis";
        schema.scales.push_back(std::move(scale));
    }
    schema.variables = {{"analysis",
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
    return schema;
}

void analyse(const ResultReader& file, const Schema& schema, const std::function<void(Slab)>& emit) {
    const auto shape = file.shape("gram/gram");
    const std::int64_t layers = shape[0], heads = shape[2];
    std::vector<double> norms;
    for (std::int64_t l = 0; l < layers; ++l) {
        for (const double square : file.read("gram/gram", {l, l, 0}, {1, 1, heads})) norms.push_back(std::sqrt(square));
    }
    for (std::int64_t l = 0; l < layers; ++l) {
        const auto gram = file.read("gram/gram", {l, 0, 0}, {1, layers, heads});
        const CosineRow row = cosines_with(l, gram, norms, heads);
        emit(make_slab(schema, "analysis/cos", {l, 0, 0}, {1, layers, heads}, std::as_bytes(std::span(row.cos))));
        emit(make_slab(schema, "analysis/cos_mean", {l, 0}, {1, layers}, std::as_bytes(std::span(row.mean))));
    }
}

}  // namespace

CosineRow cosines_with(std::int64_t layer, std::span<const double> gram, std::span<const double> norms,
                       std::int64_t heads) {
    const std::int64_t layers = heads > 0 ? std::ssize(gram) / heads : 0;
    if (gram.size() != norms.size() || layers * heads != std::ssize(gram) || layer < 0 || layer >= layers) {
        throw Error(ExitCode::internal, fmt::format("row {} of gram has {} elements and {} norms, for {} heads", layer,
                                                    gram.size(), norms.size(), heads));
    }
    const auto at = [heads](std::int64_t l, std::int64_t h) { return static_cast<std::size_t>(l * heads + h); };
    CosineRow row{std::vector<double>(gram.size()), {}};
    for (std::int64_t other = 0; other < layers; ++other) {
        Mean mean;
        for (std::int64_t h = 0; h < heads; ++h) {
            // Roots apart: the product of two squared norms could overflow or vanish.
            const double both = norms[at(layer, h)] * norms[at(other, h)];
            const double cosine = both > 0.0 ? gram[at(other, h)] / both : not_a_number;
            row.cos[at(other, h)] = cosine;
            mean.add(cosine);
        }
        row.mean.push_back(mean.value());
    }
    return row;
}

double mean_adjacent_cosine(std::span<const double> cos_mean, std::int64_t layers) {
    Mean mean;
    for (std::int64_t l = 0; l + 1 < layers; ++l) mean.add(cos_mean[static_cast<std::size_t>(l * layers + l + 1)]);
    return mean.value();
}

double mean_pair_cosine(std::span<const double> cos_mean, std::int64_t layers) {
    Mean mean;
    for (std::int64_t l = 0; l < layers; ++l) {
        for (std::int64_t m = l + 1; m < layers; ++m) mean.add(cos_mean[static_cast<std::size_t>(l * layers + m)]);
    }
    return mean.value();
}

Derivation analysis_derivation() { return {"analysis", &declare_analysis, &analyse}; }

}  // namespace geom
