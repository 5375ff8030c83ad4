// Tables of effective ranks of all heads: from group heads.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "app/analyze_tables.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr std::int64_t each_end = 5;  // of the extremes
constexpr const char* meaning = "eff_rank: exp of the entropy of the singular values' shares of their sum.";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A variable [layer, head].
struct OfHeads {
    std::vector<std::int64_t> layers;
    std::int64_t heads = 0;
    std::vector<double> values;

    explicit OfHeads(const ResultView& view, const char* path = "heads/eff_rank")
        : layers(view.layers("heads")), heads(view.shape(path)[1]), values(view.all(path)) {}

    std::vector<double> of_layer(std::int64_t l) const {
        return {values.begin() + l * heads, values.begin() + (l + 1) * heads};
    }
    std::vector<double> of_head(std::int64_t h) const {
        std::vector<double> column;
        for (std::int64_t l = 0; l < std::ssize(layers); ++l) column.push_back(values[at(l * heads + h)]);
        return column;
    }
};

void add_statistics(std::vector<Cell>& row, const std::vector<double>& values) {
    row.emplace_back(mean_of(values));
    row.emplace_back(moments_of(values).sd);
    for (const double share : {0.0, 0.5, 1.0}) row.emplace_back(quantile_of(values, share));
}

bool has_ranks(const ResultView& view) { return view.has("heads/eff_rank") && !view.layers("heads").empty(); }

}  // namespace

std::optional<Table> effective_ranks(const ResultView& view) {
    if (!has_ranks(view)) return {};
    const OfHeads ranks(view);
    Table table{"eff_rank",
                "Effective rank, layer x head",
                fmt::format("{} Of {} at most.", meaning, view.shape("heads/singular_values")[2]),
                {{"layer"}},
                {}};
    for (std::int64_t h = 0; h < ranks.heads; ++h) table.columns.push_back({fmt::format("h{}", h)});
    for (std::int64_t l = 0; l < std::ssize(ranks.layers); ++l) {
        std::vector<Cell> row{ranks.layers[at(l)]};
        for (const double value : ranks.of_layer(l)) row.emplace_back(value);
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::optional<Table> effective_ranks_by_layer(const ResultView& view) {
    if (!has_ranks(view)) return {};
    constexpr std::array others{"eff_rank_energy", "stable_rank", "asymmetry", "positivity", "sym_positive_energy"};
    const OfHeads ranks(view);
    Table table{
        "heads_by_layer",
        fmt::format("Heads by layer, over {} heads", ranks.heads),
        std::string("mean, sd (of the population), min, median, max: of eff_rank. The rest: means over heads; for "
                    "operators that nothing shapes asymmetry is sqrt(2), positivity 0, sym_positive_energy 0.5."),
        {{"layer"}, {"mean"}, {"sd"}, {"min"}, {"median"}, {"max"}},
        {}};
    std::vector<OfHeads> means;
    for (const char* name : others) {
        table.columns.push_back({name});
        means.emplace_back(view, (std::string("heads/") + name).c_str());
    }
    for (std::int64_t l = 0; l < std::ssize(ranks.layers); ++l) {
        std::vector<Cell> row{ranks.layers[at(l)]};
        add_statistics(row, ranks.of_layer(l));
        for (const OfHeads& other : means) row.emplace_back(mean_of(other.of_layer(l)));
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::optional<Table> effective_ranks_by_head(const ResultView& view) {
    if (!has_ranks(view)) return {};
    const OfHeads ranks(view);
    std::vector<double> means;
    for (std::int64_t h = 0; h < ranks.heads; ++h) means.push_back(mean_of(ranks.of_head(h)));
    const double low = quantile_of(means, 0.25), high = quantile_of(means, 0.75);
    Table table{
        "heads_by_head",
        fmt::format("Heads, over {} layers", ranks.layers.size()),
        fmt::format("mean, sd (of the population), min, median, max: of eff_rank over layers. LOW-RANK, HIGH-RANK: "
                    "heads whose mean lies below {:.4g} or above {:.4g}, the quartiles of these means.",
                    low, high),
        {{"head"}, {"mean"}, {"sd"}, {"min"}, {"median"}, {"max"}, {"tag", "", Align::left}},
        {}};
    for (std::int64_t h = 0; h < ranks.heads; ++h) {
        std::vector<Cell> row{h};
        add_statistics(row, ranks.of_head(h));
        row.emplace_back(means[at(h)] < low ? "LOW-RANK" : means[at(h)] > high ? "HIGH-RANK" : "");
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::optional<Table> effective_rank_extremes(const ResultView& view) {
    if (!has_ranks(view)) return {};
    const OfHeads ranks(view);
    const OfHeads energy(view, "heads/eff_rank_energy"), stable(view, "heads/stable_rank");
    Table table{"eff_rank_extremes",
                "Heads of the largest and the smallest effective rank",
                meaning,
                {{"layer"}, {"head"}, {"eff_rank"}, {"eff_rank_energy"}, {"stable_rank"}},
                {}};
    table.keys = 2;
    for (const std::int64_t i : extremes(ranks.values, each_end)) {
        table.rows.push_back({ranks.layers[at(i / ranks.heads)], i % ranks.heads, ranks.values[at(i)],
                              energy.values[at(i)], stable.values[at(i)]});
    }
    return table;
}

}  // namespace geom
