#include "app/analyze_tables.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "derivations/statistics.hpp"

namespace geom {

std::span<const TableMaker> table_makers() {
    static constexpr std::array all{
        TableMaker{"analysis", &summary},
        TableMaker{"gram", &cosines_to_anchor},
        TableMaker{"gram", &adjacent_cosines},
        TableMaker{"gram", &layers_by_cosine},
        TableMaker{"gram", &heads_by_cosine},
        TableMaker{"match", &matched_to_anchor},
        TableMaker{"match", &matched_adjacent},
        TableMaker{"heads", &sign_agreement_by_thirds},
        TableMaker{"heads", &angles_to_anchor},
        TableMaker{"heads", &head_figures},
        TableMaker{"heads", &head_ranges},
        TableMaker{"heads", &head_largest},
        TableMaker{"heads", &effective_ranks},
        TableMaker{"heads", &effective_ranks_by_layer},
        TableMaker{"heads", &effective_ranks_by_head},
        TableMaker{"heads", &effective_rank_extremes},
    };
    return all;
}

std::vector<Table> tables_of(const ResultView& view) {
    std::vector<Table> tables;
    for (const TableMaker& maker : table_makers()) {
        if (auto table = maker.make(view)) tables.push_back(std::move(*table));
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
