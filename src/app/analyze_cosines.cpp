// Tables of cosines of QK operators of two layers, same head: from group analysis, as gram gives it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/analyze_tables.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr std::int64_t each_end = 5;  // of a ranking

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Cells that say how two layers relate, mean over heads; columns only where the file has what they show.
class PairCells {
public:
    explicit PairCells(const ResultView& view) : view_(view), heads_(view.shape("analysis/cos")[2]) {
        for (const char* name : {"z_two_sided", "z_shared", "z_empirical"}) {
            if (view.has(std::string("analysis/") + name)) z_names_.emplace_back(name);
        }
        has_p_ = view.has("analysis/p_two_sided");
        has_folded_ = view.has("analysis/cos_folded");
    }

    void add_columns(std::vector<Column>& columns) const {
        for (const char* name : {"cos", "null_sd", "min", "max"}) columns.push_back({name});
        for (const std::string& name : z_names_) columns.push_back({name});
        if (has_p_) columns.push_back({"p_below_0.01"});
        columns.push_back({"residual"});
        if (has_folded_) columns.push_back({"cos_folded"});
    }

    void add_cells(std::vector<Cell>& row, std::int64_t l, std::int64_t other) const {
        const auto cosines = of_heads("cos", l, other);
        Mean mean, residual;
        for (const double cosine : cosines) {
            mean.add(cosine);
            residual.add(std::isnan(cosine) ? cosine : std::sqrt(std::max(0.0, 1.0 - cosine * cosine)));
        }
        row.emplace_back(mean.value());
        row.emplace_back(l == other ? not_a_number : chance_sd(view_.hidden(), mean.count()));
        row.emplace_back(quantile_of(cosines, 0.0));
        row.emplace_back(quantile_of(cosines, 1.0));
        for (const std::string& name : z_names_) row.emplace_back(mean_of(of_heads(name, l, other)));
        if (has_p_) row.emplace_back(share_below(0.01, of_heads("p_two_sided", l, other)));
        row.emplace_back(residual.value());
        if (has_folded_) row.emplace_back(mean_of(of_heads("cos_folded", l, other)));
    }

    std::string note() const {
        std::string text = fmt::format(
            "cos: of the QK operators g = W_K^T W_Q of two layers, same head, mean over {} heads; by chance 0 +- "
            "null_sd. min, max: over heads.",
            heads_);
        for (const std::string& name : z_names_) {
            text += fmt::format(" {}: mean of the heads' cosines in standard deviations of {}.", name,
                                name == "z_two_sided" ? "operators whose in- and out-directions are random"
                                : name == "z_shared"  ? "operators in a residual basis that is rotated at random"
                                                      : "heads of the same two layers that are not matched");
        }
        if (!z_names_.empty())
            text += fmt::format(" By chance a z is 0 +- {:.2g}.", 1.0 / std::sqrt(static_cast<double>(heads_)));
        if (has_p_) text += " p_below_0.01: share of heads with p_two_sided < 0.01; by chance 0.01.";
        text += " residual: sqrt(1 - cos^2), mean over heads.";
        if (has_folded_)
            text +=
                " cos_folded: the cosine of W_Q and W_K times the weights of each layer's input norm, mean over heads.";
        return text;
    }

private:
    std::vector<double> of_heads(const std::string& name, std::int64_t l, std::int64_t other) const {
        return view_.box("analysis/" + name, {l, other, 0}, {1, 1, heads_});
    }

    static double share_below(double limit, const std::vector<double>& values) {
        Mean share;
        for (const double value : values) share.add(std::isnan(value) ? value : value < limit ? 1.0 : 0.0);
        return share.value();
    }

    const ResultView& view_;
    std::int64_t heads_;
    std::vector<std::string> z_names_;
    bool has_p_ = false, has_folded_ = false;
};

}  // namespace

std::optional<Table> cosines_to_anchor(const ResultView& view) {
    if (!view.has("analysis/cos")) return {};
    const PairCells cells(view);
    const auto layers = view.layers("analysis");
    const std::int64_t anchor = view.anchor();
    const auto scale = view.all("analysis/anchor_scale");
    Table table{"cosines_to_anchor",
                fmt::format("Cosines with layer {}, the anchor", layers[at(anchor)]),
                cells.note() + " scale: inner product with the anchor over its squared norm.",
                {{"layer"}},
                {}};
    cells.add_columns(table.columns);
    table.columns.push_back({"scale"});
    for (std::int64_t l = 0; l < std::ssize(layers); ++l) {
        std::vector<Cell> row{layers[at(l)]};
        cells.add_cells(row, l, anchor);
        row.emplace_back(scale[at(l)]);
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::optional<Table> adjacent_cosines(const ResultView& view) {
    if (!view.has("analysis/cos") || view.layers("analysis").size() < 2) return {};
    const PairCells cells(view);
    const auto layers = view.layers("analysis");
    Table table{"cosines_adjacent", "Cosines of consecutive layers", cells.note(), {{"layer"}, {"layer_b"}}, {}};
    table.keys = 2;
    cells.add_columns(table.columns);
    for (std::int64_t l = 0; l + 1 < std::ssize(layers); ++l) {
        std::vector<Cell> row{layers[at(l)], layers[at(l + 1)]};
        cells.add_cells(row, l, l + 1);
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::optional<Table> layers_by_cosine(const ResultView& view) {
    if (!view.has("analysis/cos") || view.layers("analysis").size() < 2) return {};
    const auto layers = view.layers("analysis");
    const std::int64_t others = std::ssize(layers) - 1, heads = view.shape("analysis/cos")[2];
    const auto means = view.all("analysis/mean_cos_with_others");
    Table table{
        "layers_by_cosine",
        "Strongest and weakest layers",
        fmt::format("cos: mean cosine with all other layers, same head, over {} heads; by chance 0 +- null_sd.", heads),
        {{"rank"}, {"layer"}, {"cos"}, {"null_sd"}},
        {}};
    table.keys = 2;
    const auto order = extremes(means, std::ssize(means));
    for (const std::int64_t l : extremes(means, each_end)) {
        const std::int64_t rank = std::find(order.begin(), order.end(), l) - order.begin() + 1;
        table.rows.push_back({rank, layers[at(l)], means[at(l)], chance_sd(view.hidden(), others * heads)});
    }
    return table;
}

std::optional<Table> heads_by_cosine(const ResultView& view) {
    if (!view.has("analysis/cos") || view.layers("analysis").size() < 2) return {};
    const auto layers = view.layers("analysis");
    const std::int64_t anchor = view.anchor(), heads = view.shape("analysis/cos")[2];
    const auto row = view.box("analysis/cos", {anchor, 0, 0}, {1, std::ssize(layers), heads});
    std::vector<std::vector<double>> of_head(at(heads));
    for (std::int64_t i = 0; i < std::ssize(row); ++i) {
        if (i / heads != anchor && !std::isnan(row[at(i)])) of_head[at(i % heads)].push_back(row[at(i)]);
    }
    std::vector<double> means;
    for (const auto& cosines : of_head) means.push_back(mean_of(cosines));
    Table table{
        "heads_by_cosine",
        fmt::format("Strongest and weakest heads, against layer {}", layers[at(anchor)]),
        "cos: of the same head with the anchor's, mean over the other layers; by chance 0 +- null_sd. min, max: "
        "over layers.",
        {{"rank"}, {"head"}, {"cos"}, {"null_sd"}, {"min"}, {"max"}},
        {}};
    table.keys = 2;
    const auto order = extremes(means, heads);
    for (const std::int64_t h : extremes(means, each_end)) {
        const std::int64_t rank = std::find(order.begin(), order.end(), h) - order.begin() + 1;
        const auto& cosines = of_head[at(h)];
        table.rows.push_back({rank, h, means[at(h)], chance_sd(view.hidden(), std::ssize(cosines)),
                              quantile_of(cosines, 0.0), quantile_of(cosines, 1.0)});
    }
    return table;
}

}  // namespace geom
