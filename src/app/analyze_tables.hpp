// Which tables a result has. Adding one takes its function here, its line in the list, and a test.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "app/result_view.hpp"
#include "output/tables.hpp"

namespace geom {

/// None where what the table shows is not in the file.
using TableMaker = std::optional<Table> (*)(const ResultView&);

/// In the order in which they are printed.
std::span<const TableMaker> table_makers();

/// Those that have something to show.
std::vector<Table> tables_of(const ResultView& view);

// What was found, in words and in a dozen numbers, each with its chance and its place in the file.
std::optional<Table> summary(const ResultView& view);

// Cosines of layers, mean over heads: with the anchor, of consecutive layers; extremes of layers and of heads.
std::optional<Table> cosines_to_anchor(const ResultView& view);
std::optional<Table> adjacent_cosines(const ResultView& view);
std::optional<Table> layers_by_cosine(const ResultView& view);
std::optional<Table> heads_by_cosine(const ResultView& view);

// Matched heads of pairs of layers: with the anchor, consecutive.
std::optional<Table> matched_to_anchor(const ResultView& view);
std::optional<Table> matched_adjacent(const ResultView& view);

// What heads share with the anchor's: signs of eigenvalues, leading directions.
std::optional<Table> sign_agreement_by_thirds(const ResultView& view);
std::optional<Table> angles_to_anchor(const ResultView& view);

// What changes from a layer to the next, by gauge and family.
std::optional<Table> variation_by_family(const ResultView& view);

// One head in depth: its figures, how its numbers are distributed, the largest of them.
std::optional<Table> head_figures(const ResultView& view);
std::optional<Table> head_ranges(const ResultView& view);
std::optional<Table> head_largest(const ResultView& view);

// Effective ranks: layer x head, by layer, by head, extremes.
std::optional<Table> effective_ranks(const ResultView& view);
std::optional<Table> effective_ranks_by_layer(const ResultView& view);
std::optional<Table> effective_ranks_by_head(const ResultView& view);
std::optional<Table> effective_rank_extremes(const ResultView& view);

// Spectra of weight matrices: a family at a time across depth (statistics, thirds, trends with drops and jumps), every
// matrix, the embeddings, experts over a layer.
std::optional<Table> spectra_statistics(const ResultView& view);
std::optional<Table> spectra_thirds(const ResultView& view);
std::optional<Table> spectra_trends(const ResultView& view);
std::optional<Table> spectra_by_layer(const ResultView& view);
std::optional<Table> spectra_of_globals(const ResultView& view);
std::optional<Table> spectra_of_experts(const ResultView& view);

// What layers add to the residual stream: layer by layer, phase by phase.
std::optional<Table> residual_by_layer(const ResultView& view);
std::optional<Table> residual_by_phase(const ResultView& view);

// --- what several of them use ---

/// Standard deviation of the mean of `count` cosines of operators that nothing relates: 1/(hidden sqrt(count)), NaN of
/// none.
double chance_sd(std::int64_t hidden, std::int64_t count);

/// Indices of the `each` largest values, descending, and the `each` smallest after them; of all that are not NaN where
/// these are no more.
std::vector<std::int64_t> extremes(std::span<const double> values, std::int64_t each);

}  // namespace geom
