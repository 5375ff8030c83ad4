// Tables of the spectra of weight matrices: across depth a family at a time, by layer, of embeddings, of experts.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "app/analyze_tables.hpp"
#include "derivations/depth.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr std::array followed{"eff_rank", "stable_rank", "alpha"};  // across depth
constexpr std::array shown{"eff_rank",    "mp_eff_rank",   "eff_rank_energy",
                           "stable_rank", "spectral_norm", "fro_norm",
                           "condition",   "n50",           "n75",
                           "n90",         "n95",           "n99",
                           "mp_outliers", "alpha",         "alpha_se",
                           "alpha_xmin"};
constexpr const char* meaning =
    "eff_rank: exp of the entropy of the singular values' shares of their sum. stable_rank: sum s^2 / s_1^2. alpha: "
    "exponent of a power law in the tail of s^2.";
constexpr const char* of_chance =
    "mp_eff_rank: eff_rank of a matrix of this shape with independent entries; mp_outliers: s^2 beyond what these "
    "have. "
    "n50 to n99: singular values that hold 50% to 99% of sum s^2.";
constexpr const char* of_depth =
    "A family at a time, over the layers that have it; of experts/FAMILY a layer's number is the mean over its "
    "experts.";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A variable [family], [family, layer] or [family, layer, expert].
class OfMatrices {
public:
    OfMatrices(const ResultView& view, const std::string& path) : shape_(view.shape(path)), values_(view.all(path)) {
        shape_.resize(3, 1);
    }

    /// Of all experts of a layer, or of its one matrix; what is NaN is left out.
    std::vector<double> of_layer(std::int64_t family, std::int64_t layer) const {
        const auto begin = values_.begin() + (family * shape_[1] + layer) * shape_[2];
        std::vector<double> there;
        std::copy_if(begin, begin + shape_[2], std::back_inserter(there), [](double x) { return !std::isnan(x); });
        return there;
    }
    double of_one(std::int64_t family, std::int64_t layer = 0) const { return mean_of(of_layer(family, layer)); }
    std::int64_t layers() const { return shape_[1]; }

private:
    std::vector<std::int64_t> shape_;
    std::vector<double> values_;
};

/// Rows and columns of the matrices of a group.
class Shapes {
public:
    Shapes(const ResultView& view, const std::string& group)
        : rows_(view, group + "/rows"), cols_(view, group + "/cols") {}

    /// "1024 x 3072"; "" where layers differ.
    std::string of_family(std::int64_t family) const {
        const double rows = the_same(rows_, family), cols = the_same(cols_, family);
        return std::isnan(rows) || std::isnan(cols) ? "" : fmt::format("{:.0f} x {:.0f}", rows, cols);
    }

private:
    static double the_same(const OfMatrices& sizes, std::int64_t family) {
        std::vector<double> all;
        for (std::int64_t layer = 0; layer < sizes.layers(); ++layer) {
            for (const double size : sizes.of_layer(family, layer)) all.push_back(size);
        }
        const Distribution distribution = distribution_of(all);
        return distribution.range == 0 ? distribution.mean : not_a_number;
    }

    OfMatrices rows_, cols_;
};

/// A figure of one family, layer by layer; layers without it are left out.
struct OfFamily {
    std::string figure, family, shape;
    std::vector<std::int64_t> layers;
    std::vector<double> values;
};

bool has_layers(const ResultView& view) { return view.has("spectra/rows") || view.has("experts/rows"); }

std::vector<OfFamily> families_of(const ResultView& view, const std::string& figure) {
    std::vector<OfFamily> families;
    for (const std::string group : {"spectra", "experts"}) {
        if (!view.has(group + "/rows")) continue;
        const OfMatrices numbers(view, group + "/" + figure);
        const Shapes shapes(view, group);
        const auto names = view.file().labels(group + "/family");
        const auto layers = view.layers(group);
        for (std::int64_t f = 0; f < std::ssize(names); ++f) {
            families.push_back(
                {figure, (group == "experts" ? "experts/" : "") + names[at(f)], shapes.of_family(f), {}, {}});
            for (std::int64_t l = 0; l < std::ssize(layers); ++l) {
                const double value = numbers.of_one(f, l);
                if (std::isnan(value)) continue;
                families.back().layers.push_back(layers[at(l)]);
                families.back().values.push_back(value);
            }
        }
    }
    return families;
}

/// f(OfFamily) of every figure that is followed, of every family.
template <class F>
void for_each_family(const ResultView& view, F f) {
    for (const char* figure : followed) {
        for (const OfFamily& family : families_of(view, figure)) f(family);
    }
}

Cell layer_at(const OfFamily& family, std::int64_t place) {
    return place < 0 ? Cell{} : Cell{family.layers[at(place)]};
}

void add_names(std::vector<Column>& columns, std::initializer_list<const char*> names) {
    for (const char* name : names) columns.push_back({name});
}

/// Keyed by figure and family.
Table depth_table(const char* name, const char* title, const std::string& note) {
    Table table{name, title, fmt::format("{} {}", of_depth, note), {{"figure"}, {"family"}}, {}};
    for (Column& key : table.columns) key.align = Align::left;
    table.keys = 2;
    return table;
}

// --- thirds

constexpr std::array third_names{"early", "middle", "late"};
constexpr std::array third_columns{&Distribution::mean,   &Distribution::std,   &Distribution::min, &Distribution::max,
                                   &Distribution::median, &Distribution::range, &Distribution::cv};

void add_third_rows(Table& table, const std::string& figure, const std::vector<OfFamily>& families) {
    std::array<std::array<Mean, third_columns.size()>, third_names.size()> together;
    for (const OfFamily& family : families) {
        const auto thirds = thirds_of(family.values);
        for (std::size_t t = 0; t < thirds.size(); ++t) {
            std::vector<Cell> row{figure, family.family, third_names[t], thirds[t].count};
            for (std::size_t i = 0; i < third_columns.size(); ++i) {
                row.emplace_back(thirds[t].*third_columns[i]);
                together[t][i].add(thirds[t].*third_columns[i]);
            }
            table.rows.push_back(std::move(row));
        }
    }
    for (std::size_t t = 0; t < together.size(); ++t) {
        std::vector<Cell> row{figure, "(mean of families)", third_names[t], Cell{}};
        for (const Mean& mean : together[t]) row.emplace_back(mean.value());
        table.rows.push_back(std::move(row));
    }
}

// --- one row a matrix

void add_shown_columns(std::vector<Column>& columns) {
    columns.push_back({"shape", "", Align::left});
    for (const char* name : shown) columns.push_back({name});
}

std::vector<OfMatrices> shown_of(const ResultView& view, const std::string& group) {
    std::vector<OfMatrices> figures;
    for (const char* name : shown) figures.emplace_back(view, group + "/" + name);
    return figures;
}

std::string shape_of_one(const OfMatrices& rows, const OfMatrices& cols, std::int64_t family, std::int64_t layer) {
    return fmt::format("{:.0f} x {:.0f}", rows.of_one(family, layer), cols.of_one(family, layer));
}

}  // namespace

std::optional<Table> spectra_statistics(const ResultView& view) {
    if (!has_layers(view)) return {};
    Table table = depth_table("spectra_statistics", "Spectra across depth: statistics of every family",
                              fmt::format("{} std, variance: of the population; cv: std / |mean|.", meaning));
    table.columns.push_back({"shape", "", Align::left});
    add_names(table.columns,
              {"count", "mean", "median", "std", "variance", "cv", "min", "max", "range", "first", "last"});
    for_each_family(view, [&](const OfFamily& family) {
        const Distribution d = distribution_of(family.values);
        const bool some = d.count > 0;
        table.rows.push_back({family.figure, family.family, family.shape, d.count, d.mean, d.median, d.std, d.variance,
                              d.cv, d.min, d.max, d.range, some ? family.values.front() : not_a_number,
                              some ? family.values.back() : not_a_number});
    });
    return table;
}

std::optional<Table> spectra_thirds(const ResultView& view) {
    if (!has_layers(view)) return {};
    Table table = depth_table("spectra_thirds", "Spectra across depth: thirds",
                              "early, middle: a third of these layers each, rounded down; late: the rest. (mean of "
                              "families): each column's mean over the families. NaN for fewer than three layers.");
    table.columns.push_back({"third", "", Align::left});
    table.keys = 3;
    add_names(table.columns, {"count", "mean", "std", "min", "max", "median", "range", "cv"});
    for (const char* figure : followed) add_third_rows(table, figure, families_of(view, figure));
    return table;
}

std::optional<Table> spectra_trends(const ResultView& view) {
    if (!has_layers(view)) return {};
    Table table = depth_table("spectra_trends", "Spectra across depth: trends, drops and jumps",
                              "trend: of the means of the thirds (U-SHAPE: the middle below both). drop, jump: the "
                              "largest fall and rise from a layer to the next that has the family, and where; NaN "
                              "where there is none, or fewer than three layers.");
    table.columns.push_back({"trend", "", Align::left});
    add_names(table.columns,
              {"early", "middle", "late", "drop", "drop_from", "drop_to", "jump", "jump_from", "jump_to"});
    for_each_family(view, [&](const OfFamily& family) {
        const auto thirds = thirds_of(family.values);
        std::vector<Cell> row{family.figure, family.family, trend_of(thirds)};
        for (const Distribution& third : thirds) row.emplace_back(third.mean);
        for (const Step& step : {largest_drop(family.values), largest_jump(family.values)}) {
            row.emplace_back(step.change);
            row.push_back(layer_at(family, step.from));
            row.push_back(layer_at(family, step.from < 0 ? -1 : step.from + 1));
        }
        table.rows.push_back(std::move(row));
    });
    return table;
}

std::optional<Table> spectra_by_layer(const ResultView& view) {
    if (!view.has("spectra/rows")) return {};
    Table table{"spectra_by_layer",
                "Spectra of every weight matrix",
                fmt::format("{} {}", meaning, of_chance),
                {{"layer"}, {"family", "", Align::left}},
                {}};
    table.keys = 2;
    add_shown_columns(table.columns);
    const auto names = view.file().labels("spectra/family");
    const auto layers = view.layers("spectra");
    const auto figures = shown_of(view, "spectra");
    const OfMatrices rows(view, "spectra/rows"), cols(view, "spectra/cols");
    for (std::int64_t l = 0; l < std::ssize(layers); ++l) {
        for (std::int64_t f = 0; f < std::ssize(names); ++f) {
            if (rows.of_layer(f, l).empty()) continue;
            std::vector<Cell> row{layers[at(l)], names[at(f)], shape_of_one(rows, cols, f, l)};
            for (const OfMatrices& figure : figures) row.emplace_back(figure.of_one(f, l));
            table.rows.push_back(std::move(row));
        }
    }
    return table;
}

std::optional<Table> spectra_of_globals(const ResultView& view) {
    if (!view.has("spectra_global/rows")) return {};
    Table table{"spectra_global",
                "Spectra of the embeddings",
                fmt::format("{} {}", meaning, of_chance),
                {{"family", "", Align::left}},
                {}};
    add_shown_columns(table.columns);
    const auto names = view.file().labels("spectra_global/family");
    const auto figures = shown_of(view, "spectra_global");
    const OfMatrices rows(view, "spectra_global/rows"), cols(view, "spectra_global/cols");
    for (std::int64_t f = 0; f < std::ssize(names); ++f) {
        std::vector<Cell> row{names[at(f)], shape_of_one(rows, cols, f, 0)};
        for (const OfMatrices& figure : figures) row.emplace_back(figure.of_one(f));
        table.rows.push_back(std::move(row));
    }
    return table;
}

std::optional<Table> spectra_of_experts(const ResultView& view) {
    if (!view.has("experts/rows")) return {};
    Table table{"experts_by_layer",
                "Spectra of experts by layer",
                fmt::format("Over the experts of a layer; std: of the population. {}", meaning),
                {{"layer"}, {"family", "", Align::left}, {"experts"}},
                {}};
    table.keys = 2;
    std::vector<OfMatrices> figures;
    for (const char* name : followed) {
        figures.emplace_back(view, std::string("experts/") + name);
        for (const char* of : {"mean", "std", "min", "max"}) table.columns.push_back({fmt::format("{}_{}", name, of)});
    }
    const auto names = view.file().labels("experts/family");
    const auto layers = view.layers("experts");
    for (std::int64_t l = 0; l < std::ssize(layers); ++l) {
        for (std::int64_t f = 0; f < std::ssize(names); ++f) {
            std::vector<Cell> row{layers[at(l)], names[at(f)], std::ssize(figures.front().of_layer(f, l))};
            for (const OfMatrices& figure : figures) {
                const Distribution d = distribution_of(figure.of_layer(f, l));
                for (const double value : {d.mean, d.std, d.min, d.max}) row.emplace_back(value);
            }
            table.rows.push_back(std::move(row));
        }
    }
    return table;
}

}  // namespace geom
