// Heads matched with heads: which head of another layer does the most alike. From match/cross_gram.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "derivations/derivation.hpp"

namespace geom {

/// cross_gram of one layer with all, and the norms that make cosines of it.
class CrossCosines {
public:
    /// Reads the norms: the roots of cross_gram's diagonal, a layer's box at a time.
    explicit CrossCosines(const ResultReader& file);

    std::int64_t layers() const noexcept { return layers_; }
    std::int64_t heads() const noexcept { return heads_; }

    /// Reads a layer's rows: [H, L, H], the one thing of that size that is held.
    void read(std::int64_t layer);

    /// [H, H] cosines of the heads of the layer last read with those of `other`; NaN for zero operators.
    std::vector<double> with(std::int64_t other) const;

private:
    const ResultReader& file_;
    std::int64_t layers_, heads_;
    std::vector<double> norms_;  // [L, H]
    std::int64_t layer_ = -1;
    std::vector<double> rows_;
};

/// The heads of another layer that those of a layer are matched with by |cos|; zero operators (NaN) count 0. `cosines`
/// is [H, H]; heads that share a key head stay together.
std::vector<std::int64_t> match_heads(std::span<const double> cosines, std::int64_t heads, std::int64_t group_size);

/// match/assignment, matched_cos, matched_null, matched_excess.
Derivation matching_derivation();

}  // namespace geom
