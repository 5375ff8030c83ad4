#include "derivations/legacy_analysis.hpp"

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "core/range.hpp"
#include "derivations/analysis.hpp"
#include "derivations/directions.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

const std::string group = "legacy/analysis";
constexpr const char* eigenvalues = "legacy/heads/sym_eigs";
constexpr std::array cosine_names{"cos",
                                  "cos_mean",
                                  "anchor_cos",
                                  "anchor_scale",
                                  "anchor_residual",
                                  "mean_cos_to_anchor",
                                  "mean_cos_to_anchor_others",
                                  "mean_cos_adjacent"};
constexpr std::array third_names{"sign_agreement_early", "sign_agreement_middle", "sign_agreement_late"};

Schema declare_legacy(const Schema& present) {
    const std::int64_t index = present.find(eigenvalues);
    if (index < 0 || present.find("analysis/anchor") < 0) return {};
    const Variable& measured = present.variables[static_cast<std::size_t>(index)];
    Schema schema{{leading_eigenvalues(present.scale_of(measured, "sym").length)}, {}};
    for (const char* name : {"layer", "layer_b"}) {
        Scale scale = present.scale_of(analysis_variable("", {}, ""), name);
        scale.group = group;
        schema.scales.push_back(std::move(scale));
    }
    for (const Variable& variable : present.variables) {
        const bool cosine = std::find(cosine_names.begin(), cosine_names.end(), variable.name) != cosine_names.end();
        if (variable.group != "analysis" || !(cosine || variable.name == "anchor")) continue;
        schema.variables.push_back(variable);
        schema.variables.back().group = group;
    }
    const auto add = [&schema](const char* name, std::vector<std::string> dims, const char* long_name,
                               const char* missing) {
        schema.variables.push_back({group, name, std::move(dims), ValueType::f64, long_name, "1", missing});
    };
    add("fraction_positive", {"layer"}, "share of positive eigenvalues of g + g^T, mean over heads", "");
    add("sign_agreement", {"top_k_signs", "layer"},
        "share of the leading eigenvalues of g + g^T whose sign is that of the anchor's, mean over heads", "");
    add(third_names[0], {"top_k_signs"}, "mean of sign_agreement over layers 0 to 11", "NaN without such layers");
    add(third_names[1], {"top_k_signs"}, "mean of sign_agreement over layers 12 to 23", "NaN without such layers");
    add(third_names[2], {"top_k_signs"}, "mean of sign_agreement over layers from 24 on", "NaN without such layers");
    add("angle_mean_cos", {"layer"}, "cosine of the principal angles between eig_dirs and the anchor's, mean",
        "every head is zero");
    add("angle_min_cos", {"layer"}, "cosine of the largest of these angles, mean over heads", "every head is zero");
    add("top1_overlap", {"layer"}, "squared cosine of the first eig_dirs, mean over heads", "every head is zero");
    return schema;
}

template <class T>
void emit_legacy(const DerivationContext& context, const char* name, const std::vector<T>& numbers) {
    context.emit(whole_slab(context.schema, group + "/" + name, numbers));
}

void emit_fraction_positive(const DerivationContext& context) {
    const auto shape = context.file.shape(eigenvalues);
    std::vector<double> fractions;
    for (std::int64_t l = 0; l < shape[0]; ++l) {
        Mean positive;
        for (const double value : context.file.read(eigenvalues, {l, 0, 0}, {1, shape[1], shape[2]}))
            positive.add(std::isnan(value) ? value : value > 0.0 ? 1.0 : 0.0);
        fractions.push_back(positive.value());
    }
    emit_legacy(context, "fraction_positive", fractions);
}

void emit_signs(const DerivationContext& context, std::int64_t anchor) {
    const std::int64_t layers = context.file.shape(eigenvalues)[0];
    const auto& leading =
        context.schema
            .scale_of(
                context.schema.variables[static_cast<std::size_t>(context.schema.index_of(group + "/sign_agreement"))],
                "top_k_signs")
            .values;
    const auto agreement = sign_agreements(context.file, eigenvalues, anchor, leading);
    emit_legacy(context, "sign_agreement", agreement);
    const std::array<Range, 3> thirds{Range{0, 12}, Range{12, 24}, Range{24, layers}};
    for (std::size_t t = 0; t < thirds.size(); ++t) {
        std::vector<double> means;
        for (std::size_t k = 0; k < leading.size(); ++k) {
            Mean mean;
            for (std::int64_t l = thirds[t].begin; l < std::min(thirds[t].end, layers); ++l)
                mean.add(agreement[k * static_cast<std::size_t>(layers) + static_cast<std::size_t>(l)]);
            means.push_back(mean.value());
        }
        emit_legacy(context, third_names[t], means);
    }
}

void compute_legacy(const DerivationContext& context) {
    if (context.schema.find(group + "/anchor") < 0) return;
    const std::int64_t anchor =
        anchor_row(context.schema.scale_of(analysis_variable("", {}, ""), "layer"), context.settings.anchor);
    const double number = context.file.read("analysis/anchor").front();
    emit_legacy(context, "anchor", std::vector<std::int32_t>{static_cast<std::int32_t>(number)});
    for (const char* name : cosine_names) {
        if (context.schema.find(group + "/" + name) >= 0)
            emit_legacy(context, name, context.file.read(std::string("analysis/") + name));
    }
    emit_fraction_positive(context);
    emit_signs(context, anchor);
    const std::int64_t hidden = context.file.shape("legacy/heads/eig_dirs")[3];
    const AngleMeans angles = angle_means(context.file, "legacy/heads/eig_dirs", anchor,
                                          [hidden](std::span<float> rows) { orthonormalise(rows, hidden); });
    emit_legacy(context, "angle_mean_cos", angles.mean_cos);
    emit_legacy(context, "angle_min_cos", angles.min_cos);
    emit_legacy(context, "top1_overlap", angles.top1);
}

}  // namespace

void orthonormalise(std::span<float> rows, std::int64_t hidden) {
    const std::int64_t count = std::ssize(rows) / hidden;
    std::vector<double> wide(rows.begin(), rows.end());
    const auto row = [&](std::int64_t i) { return wide.data() + i * hidden; };
    const auto dot = [hidden](const double* a, const double* b) {
        double sum = 0.0;
        for (std::int64_t x = 0; x < hidden; ++x) sum += a[x] * b[x];
        return sum;
    };
    for (std::int64_t i = 0; i < count; ++i) {
        for (int pass = 0; pass < 2; ++pass) {
            for (std::int64_t j = 0; j < i; ++j) {
                const double along = dot(row(i), row(j));
                for (std::int64_t x = 0; x < hidden; ++x) row(i)[x] -= along * row(j)[x];
            }
            const double norm = std::sqrt(dot(row(i), row(i)));
            for (std::int64_t x = 0; x < hidden; ++x) row(i)[x] /= norm;
        }
    }
    for (std::size_t x = 0; x < rows.size(); ++x) rows[x] = static_cast<float>(wide[x]);
}

Derivation legacy_analysis_derivation() { return {"legacy", &declare_legacy, &compute_legacy}; }

}  // namespace geom
