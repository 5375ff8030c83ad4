// Tables of one head in depth: from group heads.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "app/analyze_tables.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr std::int64_t longest_list = 20;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The numbers of a head; padding (NaN) left out.
struct Head {
    HeadName name;
    std::int64_t row = 0;
    std::vector<double> singular, re, im, symmetric;

    explicit Head(const ResultView& view) : name(view.head()) {
        const auto layers = view.layers("heads");
        row = std::find(layers.begin(), layers.end(), name.layer) - layers.begin();
        singular = numbers(view, "heads/singular_values");
        re = numbers(view, "heads/eigvals_re");
        im = numbers(view, "heads/eigvals_im");
        symmetric = numbers(view, "heads/sym_eigs");
    }

    std::string title(const char* what) const {
        return fmt::format("Layer {}, head {}: {}", name.layer, name.head, what);
    }

    std::vector<double> magnitudes() const {
        std::vector<double> values;
        for (std::size_t i = 0; i < re.size(); ++i) values.push_back(std::hypot(re[i], im[i]));
        return values;
    }

private:
    std::vector<double> numbers(const ResultView& view, const std::string& path) const {
        auto values = view.box(path, {row, name.head, 0}, {1, 1, view.shape(path)[2]});
        std::erase_if(values, [](double value) { return std::isnan(value); });
        return values;
    }
};

// [n] shares of the sum of squares of values in the first 1, 2, ... of them; NaN of zeros.
std::vector<double> cumulative_energy(const std::vector<double>& values) {
    std::vector<double> shares;
    double sum = 0.0;
    for (const double value : values) shares.push_back(sum += value * value);
    for (double& share : shares) share /= sum;
    return shares;
}

template <class Predicate>
std::int64_t count_if(const std::vector<double>& values, Predicate predicate) {
    return std::count_if(values.begin(), values.end(), predicate);
}

bool has_heads(const ResultView& view) {
    return view.has("heads/singular_values") && !view.layers("heads").empty() &&
           view.shape("heads/singular_values")[1] > 0;
}

double at_or_nan(const std::vector<double>& values, std::int64_t i) {
    return i < std::ssize(values) ? values[at(i)] : not_a_number;
}

}  // namespace

std::optional<Table> head_figures(const ResultView& view) {
    if (!has_heads(view)) return {};
    const Head head(view);
    Table table{"head",
                head.title("figures"),
                "Of g = W_K^T W_Q. For an operator that nothing shapes asymmetry is sqrt(2), positivity 0 and "
                "sym_positive_energy 0.5.",
                {{"figure", "", Align::left}, {"value"}},
                {}};
    const auto add = [&table](const char* name, Cell value) { table.rows.push_back({name, std::move(value)}); };
    for (const char* name :
         {"eff_rank", "eff_rank_energy", "stable_rank", "fro_sq", "asymmetry", "positivity", "sym_positive_energy"}) {
        add(name, view.box(std::string("heads/") + name, {head.row, head.name.head}, {1, 1}).front());
    }
    const auto positive = [](double value) { return value > 0.0; };
    const auto negative = [](double value) { return value < 0.0; };
    add("singular values", std::ssize(head.singular));
    add("singular values above zero", count_if(head.singular, positive));
    add("eigenvalues that are complex", count_if(head.im, [](double value) { return value != 0.0; }));
    add("eigenvalues with positive real part", count_if(head.re, positive));
    add("eigenvalues with negative real part", count_if(head.re, negative));
    add("eigenvalues of g + g^T above zero", count_if(head.symmetric, positive));
    add("eigenvalues of g + g^T below zero", count_if(head.symmetric, negative));
    const auto energy = cumulative_energy(head.singular);
    for (const std::int64_t n : {1, 5, 10, 20}) {
        if (n <= std::ssize(energy))
            add(fmt::format("energy in the first {} singular values", n).c_str(), energy[at(n - 1)]);
    }
    return table;
}

std::optional<Table> head_ranges(const ResultView& view) {
    if (!has_heads(view)) return {};
    const Head head(view);
    constexpr std::array shares{0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0};
    Table table{"head_ranges",
                head.title("ranges and percentiles"),
                "Linear between order statistics.",
                {{"of", "", Align::left}, {"min"}, {"5%"}, {"25%"}, {"median"}, {"75%"}, {"95%"}, {"max"}, {"mean"}},
                {}};
    const auto add = [&](const char* name, const std::vector<double>& values) {
        std::vector<Cell> row{name};
        for (const double share : shares) row.emplace_back(quantile_of(values, share));
        row.emplace_back(mean_of(values));
        table.rows.push_back(std::move(row));
    };
    add("singular values", head.singular);
    add("|eigenvalues|", head.magnitudes());
    add("real parts", head.re);
    add("imaginary parts", head.im);
    add("eigenvalues of g + g^T", head.symmetric);
    return table;
}

std::optional<Table> head_largest(const ResultView& view) {
    if (!has_heads(view)) return {};
    const Head head(view);
    const auto energy = cumulative_energy(head.singular), symmetric = cumulative_energy(head.symmetric);
    const auto magnitudes = head.magnitudes();
    Table table{
        "head_largest",
        head.title("largest singular values and eigenvalues"),
        "Each kind by magnitude, on its own. energy: share of the sum of squares in the first i, of the singular "
        "values and of the eigenvalues of g + g^T (sym_eig).",
        {{"i"}, {"singular_value"}, {"energy"}, {"eig_re"}, {"eig_im"}, {"eig_abs"}, {"sym_eig"}, {"sym_energy"}},
        {}};
    const std::int64_t length = std::max(std::ssize(head.singular), std::ssize(head.symmetric));
    for (std::int64_t i = 0; i < std::min(longest_list, length); ++i) {
        table.rows.push_back({i + 1, at_or_nan(head.singular, i), at_or_nan(energy, i), at_or_nan(head.re, i),
                              at_or_nan(head.im, i), at_or_nan(magnitudes, i), at_or_nan(head.symmetric, i),
                              at_or_nan(symmetric, i)});
    }
    return table;
}

}  // namespace geom
