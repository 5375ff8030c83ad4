#include "derivations/directions.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "core/range.hpp"
#include "derivations/analysis.hpp"
#include "derivations/null_models.hpp"
#include "derivations/small_matrix.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr std::uint64_t null_seed = 2;
constexpr std::array third_names{"early", "middle", "late"};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

int sign(double value) { return value > 0.0 ? 1 : value < 0.0 ? -1 : 0; }

// Eight sums side by side, which the compiler keeps in vectors; their order is fixed.
double dot(const float* a, const float* b, std::int64_t n) {
    std::array<double, 8> sums{};
    std::int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (std::int64_t lane = 0; lane < 8; ++lane)
            sums[at(lane)] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
    for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

std::int64_t rows_that_are_numbers(std::span<const float> rows, std::int64_t hidden) {
    std::int64_t count = 0;
    while ((count + 1) * hidden <= std::ssize(rows) && !std::isnan(rows[at(count * hidden)])) ++count;
    return count;
}

const Scale& scale_of(const Schema& schema, const std::string& path, const char* dim) {
    return schema.scale_of(schema.variables[at(schema.index_of(path))], dim);
}

// Thirds of the layers, without the anchor, which agrees with itself.
void emit_thirds(const DerivationContext& context, std::span<const double> agreement, std::int64_t layers,
                 std::int64_t anchor) {
    const std::int64_t third = layers / 3, leading = std::ssize(agreement) / layers;
    const std::array<Range, 3> thirds{Range{0, third}, Range{third, 2 * third}, Range{2 * third, layers}};
    for (std::size_t t = 0; t < thirds.size(); ++t) {
        std::vector<double> means;
        for (std::int64_t k = 0; k < leading; ++k) {
            Mean mean;
            for (std::int64_t l = thirds[t].begin; third > 0 && l < thirds[t].end; ++l)
                if (l != anchor) mean.add(agreement[at(k * layers + l)]);
            means.push_back(mean.value());
        }
        emit_whole(context, std::string("sign_agreement_") + third_names[t], means);
    }
}

void emit_signs(const DerivationContext& context, std::int64_t anchor) {
    const auto shape = context.file.shape("heads/sym_eigs");
    const auto& leading = scale_of(context.schema, "analysis/sign_agreement", "top_k_signs").values;
    const auto agreement = sign_agreements(context.file, "heads/sym_eigs", anchor, leading);
    emit_whole(context, "sign_agreement", agreement);
    emit_thirds(context, agreement, shape[0], anchor);
    const auto hidden = static_cast<std::int64_t>(context.file.number_attribute("", "hidden"));
    auto deviations = sign_agreement_sd(shape[2] / 2, hidden, leading, null_seed);
    for (double& deviation : deviations) deviation /= std::sqrt(static_cast<double>(shape[1]));
    emit_whole(context, "sign_agreement_chance_sd", deviations);
}

}  // namespace

double sign_agreement(std::span<const double> left, std::span<const double> right, std::int64_t k) {
    Mean mean;
    for (std::int64_t i = 0; i < std::min(k, std::ssize(left)); ++i) {
        if (std::isnan(left[at(i)]) || std::isnan(right[at(i)])) continue;
        mean.add(sign(left[at(i)]) == sign(right[at(i)]) ? 1.0 : 0.0);
    }
    return mean.value();
}

std::vector<double> sign_agreements(const ResultReader& file, const std::string& path, std::int64_t anchor,
                                    std::span<const std::int32_t> leading) {
    const auto shape = file.shape(path);
    const std::int64_t layers = shape[0], heads = shape[1], length = shape[2];
    const auto of_layer = [&](std::int64_t l) { return file.read(path, {l, 0, 0}, {1, heads, length}); };
    const auto of_head = [&](const std::vector<double>& values, std::int64_t h) {
        return std::span(values).subspan(at(h * length), at(length));
    };
    const auto anchors = of_layer(anchor);
    std::vector<double> agreement(leading.size() * at(layers));
    for (std::int64_t l = 0; l < layers; ++l) {
        const auto values = of_layer(l);
        for (std::size_t k = 0; k < leading.size(); ++k) {
            Mean mean;
            for (std::int64_t h = 0; h < heads; ++h)
                mean.add(sign_agreement(of_head(values, h), of_head(anchors, h), leading[k]));
            agreement[k * at(layers) + at(l)] = mean.value();
        }
    }
    return agreement;
}

SubspaceAngles subspace_angles(std::span<const float> left, std::span<const float> right, std::int64_t hidden) {
    const std::int64_t k = rows_that_are_numbers(left, hidden), other = rows_that_are_numbers(right, hidden);
    if (k == 0 || other == 0) return {not_a_number, not_a_number, not_a_number, not_a_number, not_a_number};
    std::vector<double> products;
    for (std::int64_t i = 0; i < k; ++i) {
        for (std::int64_t j = 0; j < other; ++j)
            products.push_back(dot(left.data() + i * hidden, right.data() + j * hidden, hidden));
    }
    SubspaceAngles angles;
    angles.chance = static_cast<double>(k * other) / static_cast<double>(hidden);
    angles.top1 = products[0] * products[0];
    Mean mean;
    for (const double value : singular_values_of(products, k, other)) {
        angles.min_cos = std::min(1.0, value);  // the last is the least
        mean.add(angles.min_cos);
        angles.overlap += angles.min_cos * angles.min_cos;
    }
    angles.mean_cos = mean.value();
    return angles;
}

AngleMeans angle_means(const ResultReader& file, const std::string& path, std::int64_t anchor,
                       const std::function<void(std::span<float>)>& prepare) {
    const auto shape = file.shape(path);
    const auto directions = [&](std::int64_t l, std::int64_t h) {
        std::vector<float> rows(at(shape[2] * shape[3]));
        file.read_bytes(path, ValueType::f32, {l, h, 0, 0}, {1, 1, shape[2], shape[3]},
                        std::as_writable_bytes(std::span(rows)));
        prepare(rows);
        return rows;
    };
    std::vector<std::array<Mean, 5>> means(at(shape[0]));
    for (std::int64_t h = 0; h < shape[1]; ++h) {
        const auto of_anchor = directions(anchor, h);
        for (std::int64_t l = 0; l < shape[0]; ++l) {
            const SubspaceAngles angles = subspace_angles(directions(l, h), of_anchor, shape[3]);
            const std::array values{angles.mean_cos, angles.min_cos, angles.overlap, angles.chance, angles.top1};
            for (std::size_t i = 0; i < values.size(); ++i) means[at(l)][i].add(values[i]);
        }
    }
    AngleMeans all;
    for (const auto& [mean_cos, min_cos, overlap, chance, top1] : means) {
        all.mean_cos.push_back(mean_cos.value());
        all.min_cos.push_back(min_cos.value());
        all.overlap.push_back(overlap.value());
        all.chance.push_back(chance.value());
        all.top1.push_back(top1.value());
    }
    return all;
}

Scale leading_eigenvalues(std::int64_t length) {
    Scale leading{"", "top_k_signs", 0, {}, "number of leading eigenvalues of g + g^T", {}};
    for (std::int32_t k = 2; k <= std::min<std::int64_t>(256, length); k *= 2) leading.values.push_back(k);
    leading.length = std::ssize(leading.values);
    return leading;
}

Schema declare_directions(const Schema& present) {
    if (present.find("heads/sym_eigs") < 0) return {};
    Schema schema{{leading_eigenvalues(scale_of(present, "heads/sym_eigs", "sym").length)}, {}};
    const auto add = [&schema](const std::string& name, std::vector<std::string> dims, const std::string& long_name,
                               const char* missing) {
        schema.variables.push_back(analysis_variable(name, std::move(dims), long_name, missing));
    };
    add("sign_agreement", {"top_k_signs", "layer"},
        "share of the leading eigenvalues of g + g^T whose sign is that of the anchor's, same head, mean over heads",
        "");
    for (const char* third : third_names) {
        add(std::string("sign_agreement_") + third, {"top_k_signs"},
            std::string("mean of sign_agreement over the ") + third + " third of the layers, the anchor left out",
            "NaN for fewer than three layers");
    }
    add("sign_agreement_chance_sd", {"top_k_signs"},
        "standard deviation of sign_agreement about its mean 1/2 for heads that nothing relates, simulated", "");
    if (present.find("heads/right_dirs") < 0) return schema;
    const char* missing = "NaN where every head is zero in the layer or the anchor";
    add("angle_mean_cos", {"layer"},
        "cosine of the principal angles between leading right directions and the anchor's, mean over angles and heads",
        missing);
    add("angle_min_cos", {"layer"}, "cosine of the largest of these angles, mean over heads", missing);
    add("top1_overlap", {"layer"}, "squared cosine of the first right directions, mean over heads (by chance 1/hidden)",
        missing);
    add("subspace_overlap", {"layer"}, "sum of the squared cosines of these angles, mean over heads", missing);
    add("subspace_overlap_chance", {"layer"}, "its expectation for directions that nothing relates: k^2/hidden",
        missing);
    return schema;
}

void compute_directions(const DerivationContext& context, std::int64_t anchor) {
    if (context.schema.find("heads/sym_eigs") < 0) return;
    emit_signs(context, anchor);
    if (context.schema.find("heads/right_dirs") < 0) return;
    const AngleMeans angles = angle_means(context.file, "heads/right_dirs", anchor);
    emit_whole(context, "angle_mean_cos", angles.mean_cos);
    emit_whole(context, "angle_min_cos", angles.min_cos);
    emit_whole(context, "top1_overlap", angles.top1);
    emit_whole(context, "subspace_overlap", angles.overlap);
    emit_whole(context, "subspace_overlap_chance", angles.chance);
}

}  // namespace geom
