#include "app/analyze_tables.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "derivations/statistics.hpp"

namespace geom {

std::span<const TableMaker> table_makers() {
    static constexpr std::array all{
        // what follows from all of them
        &summary,
        // gram
        &cosines_to_anchor,
        &adjacent_cosines,
        &layers_by_cosine,
        &heads_by_cosine,
        // match
        &matched_to_anchor,
        &matched_adjacent,
        // heads
        &sign_agreement_by_thirds,
        &angles_to_anchor,
        &head_figures,
        &head_ranges,
        &head_largest,
        &effective_ranks,
        &effective_ranks_by_layer,
        &effective_ranks_by_head,
        &effective_rank_extremes,
        // spectra
        &spectra_statistics,
        &spectra_thirds,
        &spectra_trends,
        &spectra_by_layer,
        &spectra_of_globals,
        &spectra_of_experts,
        // variation
        &variation_by_family,
        // residual
        &residual_by_layer,
        &residual_by_phase,
    };
    return all;
}

std::vector<Table> tables_of(const ResultView& view) {
    std::vector<Table> tables;
    for (const TableMaker make : table_makers()) {
        if (auto table = make(view)) tables.push_back(std::move(*table));
    }
    return tables;
}

double chance_sd(std::int64_t hidden, std::int64_t count) {
    return count == 0 ? not_a_number : 1.0 / (static_cast<double>(hidden) * std::sqrt(static_cast<double>(count)));
}

std::vector<std::int64_t> extremes(std::span<const double> values, std::int64_t each) {
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < std::ssize(values); ++i) {
        if (!std::isnan(values[static_cast<std::size_t>(i)])) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [values](std::int64_t a, std::int64_t b) {
        return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
    });
    if (std::ssize(order) > 2 * each) order.erase(order.begin() + each, order.end() - each);
    return order;
}

}  // namespace geom
