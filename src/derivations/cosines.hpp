// Cosines of the QK operators of two layers, same head, and what they say of an anchor layer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "derivations/derivation.hpp"

namespace geom {

/// One layer against all: a row of the group's variables.
struct CosineRow {
    std::vector<double> cos;   ///< [L, H]: gram[l,l',h] / sqrt(gram[l,l,h] gram[l',l',h]); NaN where one is zero
    std::vector<double> mean;  ///< [L]: over heads that are not NaN; NaN where none is
};

/// `gram` is [L, H], row `layer` of gram; `norms` is [L, H], the roots of gram's diagonal. Throws Error(internal) when
/// the sizes do not fit.
CosineRow cosines_with(std::int64_t layer, std::span<const double> gram, std::span<const double> norms,
                       std::int64_t heads);

/// gram of a file, or its like at another path, a layer's row at a time.
class GramRows {
public:
    explicit GramRows(const ResultReader& file, std::string path = "gram/gram");

    std::int64_t layers() const noexcept { return layers_; }
    std::int64_t heads() const noexcept { return heads_; }
    std::span<const double> norms() const noexcept { return norms_; }  ///< [L, H]
    std::vector<double> gram(std::int64_t layer) const;                ///< [L, H]
    CosineRow cosines(std::int64_t layer) const { return cosines_with(layer, gram(layer), norms_, heads_); }

private:
    const ResultReader& file_;
    std::string path_;
    std::int64_t layers_, heads_;
    std::vector<double> norms_;
};

/// How layers relate to the anchor, means over heads.
struct AnchorRow {
    std::vector<double> scale;     ///< [L] gram[l,anchor,h] / |g_anchor|^2: by how much the anchor is contained
    std::vector<double> residual;  ///< [L] sqrt(1 - cos^2): what of a layer the anchor does not explain
};

/// `gram` is [L, H], the anchor's row; `row` its cosines.
AnchorRow relation_to_anchor(std::int64_t anchor, std::span<const double> gram, const CosineRow& row,
                             std::int64_t heads);

/// Mean of cos_mean [L, L] over consecutive layers; NaN for a single layer. NaN entries are skipped.
double mean_adjacent_cosine(std::span<const double> cos_mean, std::int64_t layers);

/// Mean of cos_mean [L, L] of each layer with all others, [L].
std::vector<double> mean_cosine_with_others(std::span<const double> cos_mean, std::int64_t layers);

/// STRONG > 0.9, MEDIUM > 0.5, WEAK > 0.1, else REJECTED; "" for NaN.
std::string_view verdict_of(double mean_cosine);

/// The part of group analysis that gram gives; with match the verdict on matched heads too.
Schema declare_cosines(const Schema& present);
void compute_cosines(const DerivationContext& context);
/// What an anchor adds to it; reads analysis/cos_mean.
void compute_anchor_cosines(const DerivationContext& context, std::int64_t anchor);

}  // namespace geom
