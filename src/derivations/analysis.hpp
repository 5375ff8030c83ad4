// What the gram and the heads mean: cosines with an anchor layer, what they would be by chance, a verdict. Put together
// from three parts, each with its variables and its sums:
//
//   cosines.hpp        from gram: cosines of layers, with the anchor, verdicts
//   directions.hpp     from heads: signs and subspaces shared with the anchor
//   significance.hpp   from gram and heads, and match where it ran: every cosine beside its null
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "derivations/derivation.hpp"

namespace geom {

/// The row of the layer that `anchor` names: a coordinate of the scale, or from the last one back where negative.
/// Throws Error(usage) when there is none, naming those there are.
std::int64_t anchor_row(const Scale& layers, std::int64_t anchor);

/// Throws that error, before anything is measured, where `schema` (of with_derivations) has an analysis.
void check_anchor(const Schema& schema, const DerivationSettings& settings);

/// A variable of group analysis, without a unit.
Variable analysis_variable(std::string name, std::vector<std::string> dims, std::string long_name,
                           std::string missing = "");

/// Emits all of a variable of group analysis.
template <class T>
void emit_whole(const DerivationContext& context, const std::string& name, const std::vector<T>& numbers) {
    context.emit(whole_slab(context.schema, "analysis/" + name, numbers));
}

/// The part of group analysis that another anchor changes; the rest of it is in the file. Emits no large variable.
/// Throws Error(usage) as anchor_row() does.
void analyse_anchor(const DerivationContext& context);

/// Group analysis, from gram, heads or both, and what match adds to it.
Derivation analysis_derivation();

}  // namespace geom
