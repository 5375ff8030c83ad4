#include "derivations/cosines.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "derivations/analysis.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr const char* zero_operator = "NaN where one of the operators is zero";
constexpr const char* zero_layer = "NaN where every head has a zero operator in one of the layers";
constexpr const char* single_layer = "NaN for a single layer";
constexpr const char* folded_gram = "gram/gram_folded";
constexpr const char* no_norm = "NaN where one of the operators is zero or one of the layers has no input norm";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<double> adjacent(std::span<const double> cos_mean, std::int64_t layers) {
    std::vector<double> values;
    for (std::int64_t l = 0; l + 1 < layers; ++l) values.push_back(cos_mean[at(l * layers + l + 1)]);
    return values;
}

void set_verdict(const DerivationContext& context, const char* name, double mean_cosine) {
    const std::string_view verdict = verdict_of(mean_cosine);
    if (!verdict.empty()) context.set({"analysis", name, std::string(verdict)});
}

// The layers' means, and what follows from them alone.
void emit_scalars(const DerivationContext& context, std::span<const double> cos_mean, std::int64_t layers,
                  std::int64_t anchor) {
    const auto number = [&context](const char* name, double value) {
        emit_whole(context, name, std::vector<double>{value});
    };
    const auto pair = [&](std::int64_t l, std::int64_t other) { return cos_mean[at(l * layers + other)]; };
    const auto next = adjacent(cos_mean, layers);
    const auto others = mean_cosine_with_others(cos_mean, layers);
    const double median = quantile_of(others, 0.5);
    number("mean_cos_adjacent", mean_of(next));
    number("min_cos_adjacent", quantile_of(next, 0.0));
    number("max_cos_adjacent", quantile_of(next, 1.0));
    number("cos_first_last", layers > 1 ? pair(0, layers - 1) : not_a_number);
    number("cos_middle_last", layers > 1 ? pair(layers / 2, layers - 1) : not_a_number);
    number("mean_cos_to_anchor", mean_of(cos_mean.subspan(at(anchor * layers), at(layers))));
    number("mean_cos_to_anchor_others", others[at(anchor)]);
    number("mean_cos_any_anchor_median", median);
    number("mean_cos_any_anchor_lower_quartile", quantile_of(others, 0.25));
    number("mean_cos_any_anchor_upper_quartile", quantile_of(others, 0.75));
    emit_whole(context, "mean_cos_with_others", others);
    set_verdict(context, "verdict", others[at(anchor)]);
    set_verdict(context, "verdict_any_anchor", median);
}

// [H] of a row's cosines: over the other layers.
std::vector<double> mean_by_head(const CosineRow& row, std::int64_t anchor, std::int64_t heads) {
    std::vector<double> means;
    for (std::int64_t h = 0; h < heads; ++h) {
        Mean mean;
        for (std::int64_t l = 0; l < std::ssize(row.mean); ++l) {
            if (l != anchor) mean.add(row.cos[at(l * heads + h)]);
        }
        means.push_back(mean.value());
    }
    return means;
}

void emit_anchor(const DerivationContext& context, const GramRows& rows, std::int64_t anchor) {
    const auto gram = rows.gram(anchor);
    const CosineRow row = cosines_with(anchor, gram, rows.norms(), rows.heads());
    const AnchorRow relation = relation_to_anchor(anchor, gram, row, rows.heads());
    emit_whole(context, "anchor_cos", row.mean);
    emit_whole(context, "anchor_cos_head", mean_by_head(row, anchor, rows.heads()));
    emit_whole(context, "anchor_scale", relation.scale);
    emit_whole(context, "anchor_residual", relation.residual);
}

// A matched cosine keeps its sign: those of unrelated layers have mean 0 although the largest were chosen.
void emit_matched(const DerivationContext& context, std::int64_t anchor) {
    const auto shape = context.file.shape("match/matched_cos");
    const std::int64_t layers = shape[0], heads = shape[2];
    const auto matched = context.file.read("match/matched_cos", {0, anchor, 0}, {layers, 1, heads});
    std::vector<double> of_layer;
    Mean others;
    for (std::int64_t l = 0; l < layers; ++l) {
        of_layer.push_back(mean_of(std::span(matched).subspan(at(l * heads), at(heads))));
        if (l != anchor) others.add(of_layer.back());
    }
    emit_whole(context, "anchor_cos_matched", of_layer);
    emit_whole(context, "mean_cos_to_anchor_others_matched", std::vector<double>{others.value()});
    set_verdict(context, "verdict_matched", others.value());
}

}  // namespace

CosineRow cosines_with(std::int64_t layer, std::span<const double> gram, std::span<const double> norms,
                       std::int64_t heads) {
    const std::int64_t layers = heads > 0 ? std::ssize(gram) / heads : 0;
    if (gram.size() != norms.size() || layers * heads != std::ssize(gram) || layer < 0 || layer >= layers) {
        throw Error(ExitCode::internal, fmt::format("row {} of gram has {} elements and {} norms, for {} heads", layer,
                                                    gram.size(), norms.size(), heads));
    }
    CosineRow row{std::vector<double>(gram.size()), {}};
    for (std::int64_t other = 0; other < layers; ++other) {
        Mean mean;
        for (std::int64_t h = 0; h < heads; ++h) {
            // Roots apart: the product of two squared norms could overflow or vanish.
            const double both = norms[at(layer * heads + h)] * norms[at(other * heads + h)];
            const double cosine = both > 0.0 ? gram[at(other * heads + h)] / both : not_a_number;
            row.cos[at(other * heads + h)] = cosine;
            mean.add(cosine);
        }
        row.mean.push_back(mean.value());
    }
    return row;
}

GramRows::GramRows(const ResultReader& file, std::string path)
    : file_(file), path_(std::move(path)), layers_(file.shape(path_)[0]), heads_(file.shape(path_)[2]) {
    for (std::int64_t l = 0; l < layers_; ++l) {
        for (const double square : file.read(path_, {l, l, 0}, {1, 1, heads_})) norms_.push_back(std::sqrt(square));
    }
}

std::vector<double> GramRows::gram(std::int64_t layer) const {
    return file_.read(path_, {layer, 0, 0}, {1, layers_, heads_});
}

AnchorRow relation_to_anchor(std::int64_t anchor, std::span<const double> gram, const CosineRow& row,
                             std::int64_t heads) {
    AnchorRow relation;
    for (std::int64_t l = 0; l * heads < std::ssize(gram); ++l) {
        Mean scale, residual;
        for (std::int64_t h = 0; h < heads; ++h) {
            const double square = gram[at(anchor * heads + h)], cosine = row.cos[at(l * heads + h)];
            scale.add(square > 0.0 ? gram[at(l * heads + h)] / square : not_a_number);
            // The square root of a negative number would be rounding's: |cos| of equal operators is 1 and a bit.
            residual.add(std::isnan(cosine) ? cosine : std::sqrt(std::max(0.0, 1.0 - cosine * cosine)));
        }
        relation.scale.push_back(scale.value());
        relation.residual.push_back(residual.value());
    }
    return relation;
}

double mean_adjacent_cosine(std::span<const double> cos_mean, std::int64_t layers) {
    return mean_of(adjacent(cos_mean, layers));
}

std::vector<double> mean_cosine_with_others(std::span<const double> cos_mean, std::int64_t layers) {
    std::vector<double> means;
    for (std::int64_t l = 0; l < layers; ++l) {
        Mean mean;
        for (std::int64_t m = 0; m < layers; ++m) mean.add(m == l ? not_a_number : cos_mean[at(l * layers + m)]);
        means.push_back(mean.value());
    }
    return means;
}

std::string_view verdict_of(double mean_cosine) {
    if (std::isnan(mean_cosine)) return "";
    if (mean_cosine > 0.9) return "STRONG";
    if (mean_cosine > 0.5) return "MEDIUM";
    return mean_cosine > 0.1 ? "WEAK" : "REJECTED";
}

Schema declare_cosines(const Schema& present) {
    Schema schema;
    const auto add = [&schema](const char* name, std::vector<std::string> dims, const char* long_name,
                               const char* missing) {
        schema.variables.push_back(analysis_variable(name, std::move(dims), long_name, missing));
    };
    if (present.find("gram/gram") >= 0) {
        add("cos", {"layer", "layer_b", "head"}, "cosine of the QK operators of two layers, same head", zero_operator);
        add("cos_mean", {"layer", "layer_b"}, "mean of cos over heads", zero_layer);
        add("z_two_sided", {"layer", "layer_b", "head"},
            "cos in standard deviations of operators whose in- and out-directions are random: cos times hidden",
            "NaN where one of the operators is zero, and for a layer with itself");
        add("anchor_cos", {"layer"}, "cosine with the anchor, mean over heads", zero_layer);
        add("anchor_cos_head", {"head"}, "cosine of a head with itself in the anchor, mean over the other layers",
            "NaN for a single layer, and where the head has a zero operator in the anchor or in all others");
        add("anchor_scale", {"layer"}, "inner product with the anchor over its squared norm, mean over heads",
            zero_layer);
        add("anchor_residual", {"layer"}, "sqrt(1 - cos^2) with the anchor, mean over heads", zero_layer);
        add("mean_cos_with_others", {"layer"}, "cos_mean with all other layers, mean: the layer as an anchor",
            single_layer);
        add("mean_cos_to_anchor", {}, "mean of anchor_cos over layers, the anchor included", zero_layer);
        add("mean_cos_to_anchor_others", {}, "mean of anchor_cos over the other layers; the verdict is on it",
            single_layer);
        add("mean_cos_any_anchor_median", {}, "median over all anchors of the mean cosine with the others",
            single_layer);
        add("mean_cos_any_anchor_lower_quartile", {}, "lower quartile of the same", single_layer);
        add("mean_cos_any_anchor_upper_quartile", {}, "upper quartile of the same", single_layer);
        add("mean_cos_adjacent", {}, "mean of cos_mean over consecutive layers", single_layer);
        add("min_cos_adjacent", {}, "least cos_mean of consecutive layers", single_layer);
        add("max_cos_adjacent", {}, "largest cos_mean of consecutive layers", single_layer);
        add("cos_first_last", {}, "cos_mean of the first and the last layer", single_layer);
        add("cos_middle_last", {}, "cos_mean of the layer in the middle, L div 2, and the last", single_layer);
    }
    if (present.find(folded_gram) >= 0) {
        add("cos_folded", {"layer", "layer_b", "head"},
            "cos of W_Q and W_K times diag(weights of the layer's input norm): of gram/gram_folded", no_norm);
        add("cos_folded_mean", {"layer", "layer_b"}, "mean of cos_folded over heads", no_norm);
        add("anchor_cos_folded", {"layer"}, "cos_folded with the anchor, mean over heads", no_norm);
        add("mean_cos_to_anchor_others_folded", {}, "mean of anchor_cos_folded over the other layers", single_layer);
    }
    if (present.find("match/matched_cos") >= 0) {
        add("anchor_cos_matched", {"layer"}, "cosine of matched heads with the anchor, mean over heads", zero_layer);
        add("mean_cos_to_anchor_others_matched", {}, "mean of anchor_cos_matched over the other layers", single_layer);
    }
    return schema;
}

namespace {

// f(layer, its cosines with all layers) for every layer; returns their means over heads, [L, L].
template <class F>
std::vector<double> for_each_row(const GramRows& rows, F f) {
    std::vector<double> means;
    for (std::int64_t l = 0; l < rows.layers(); ++l) {
        const CosineRow row = rows.cosines(l);
        f(l, row.cos);
        means.insert(means.end(), row.mean.begin(), row.mean.end());
    }
    return means;
}

void emit_row(const DerivationContext& context, const GramRows& rows, const char* path, std::int64_t layer,
              const std::vector<double>& values) {
    context.emit(make_slab(context.schema, path, {layer, 0, 0}, {1, rows.layers(), rows.heads()},
                           std::as_bytes(std::span(values))));
}

// Means over heads with the anchor, of cosines [L, L] so far as means over heads.
void emit_anchor_folded(const DerivationContext& context, std::int64_t anchor) {
    const auto means = context.file.read("analysis/cos_folded_mean");
    const std::int64_t layers = context.file.shape(folded_gram)[0];
    const std::vector<double> with_anchor(means.begin() + anchor * layers, means.begin() + (anchor + 1) * layers);
    const double others = mean_cosine_with_others(means, layers)[at(anchor)];
    emit_whole(context, "anchor_cos_folded", with_anchor);
    emit_whole(context, "mean_cos_to_anchor_others_folded", std::vector<double>{others});
    set_verdict(context, "verdict_folded", others);
}

}  // namespace

void compute_cosines(const DerivationContext& context) {
    if (context.schema.find("gram/gram") >= 0) {
        const GramRows rows(context.file);
        const double hidden = context.file.number_attribute("", "hidden");
        const auto means = for_each_row(rows, [&](std::int64_t l, std::vector<double> cosines) {
            emit_row(context, rows, "analysis/cos", l, cosines);
            for (double& value : cosines) value *= hidden;
            std::fill_n(cosines.begin() + l * rows.heads(), rows.heads(), not_a_number);
            emit_row(context, rows, "analysis/z_two_sided", l, cosines);
        });
        emit_whole(context, "cos_mean", means);
    }
    if (context.schema.find(folded_gram) >= 0) {
        const GramRows rows(context.file, folded_gram);
        const auto means = for_each_row(rows, [&](std::int64_t l, const std::vector<double>& cosines) {
            emit_row(context, rows, "analysis/cos_folded", l, cosines);
        });
        emit_whole(context, "cos_folded_mean", means);
    }
}

void compute_anchor_cosines(const DerivationContext& context, std::int64_t anchor) {
    if (context.schema.find("match/matched_cos") >= 0) emit_matched(context, anchor);
    if (context.schema.find(folded_gram) >= 0) emit_anchor_folded(context, anchor);
    if (context.schema.find("gram/gram") < 0) return;
    const GramRows rows(context.file);
    emit_anchor(context, rows, anchor);
    emit_scalars(context, context.file.read("analysis/cos_mean"), rows.layers(), anchor);
}

}  // namespace geom
