// Which families change least from a layer to the next, gauge by gauge: from group variation.
#include <fmt/format.h>

#include "app/analyze_tables.hpp"
#include "derivations/variation_ranking.hpp"

namespace geom {

std::optional<Table> variation_by_family(const ResultView& view) {
    if (!view.has("variation/residual")) return {};
    const Range block = view.block();
    Table table{
        "variation",
        fmt::format("What changes from a layer to the next, least first, layers {} to {}", block.begin, block.end - 1),
        "Frobenius distance of consecutive layers' weights, each of unit norm: 0 the same, sqrt(2) = 1.414 unrelated. "
        "none: as stored; rotation: after the best orthogonal matrix of each head, and of the MLP's neurons; "
        "none_folded: norm weights folded in, neurons balanced; function: of these, after the best change that leaves "
        "what the model computes as it is. n: pairs of layers; sd: of the population; least and most with the pair's "
        "first layer.",
        {{"gauge", "", Align::left},
         {"family", "", Align::left},
         {"mean"},
         {"least"},
         {"most"},
         {"sd"},
         {"n"},
         {"least_at"},
         {"most_at"}},
        {}};
    table.keys = 2;
    for (const FamilyVariation& found : rank_families(view.file(), block)) {
        table.rows.push_back({found.gauge, found.family, found.mean, found.least, found.most, found.sd, found.pairs,
                              found.least_pair, found.most_pair});
    }
    return table;
}

}  // namespace geom
