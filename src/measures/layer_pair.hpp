// Two consecutive decoder layers a -> b as the measure `variation` hands them to its gauges, and what a gauge gives
// back. Whole matrices in the host's memory, as stored (f8 widened); where a rank has a GPU the measure has copied
// them.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "core/weight_family.hpp"
#include "kernels/backend.hpp"
#include "kernels/folded_matrix.hpp"

namespace geom {

/// In the order of the axis `family`; a file has those that any of its layers has.
inline constexpr std::array variation_families{
    WeightFamily::q_proj,       WeightFamily::k_proj,  WeightFamily::v_proj,    WeightFamily::o_proj,
    WeightFamily::gate_proj,    WeightFamily::up_proj, WeightFamily::down_proj, WeightFamily::input_ln,
    WeightFamily::post_attn_ln, WeightFamily::q_norm,  WeightFamily::k_norm};

inline constexpr std::size_t variation_family_count = variation_families.size();

/// A family's place in variation_families.
constexpr std::size_t place_of(WeightFamily family) noexcept {
    std::size_t at = 0;
    while (variation_families[at] != family) ++at;
    return at;
}

/// The norm whose weights scale the columns that a family reads; the family itself where there is none.
constexpr WeightFamily norm_before(WeightFamily family) noexcept {
    switch (family) {
        case WeightFamily::q_proj:
        case WeightFamily::k_proj:
        case WeightFamily::v_proj:
            return WeightFamily::input_ln;
        case WeightFamily::gate_proj:
        case WeightFamily::up_proj:
            return WeightFamily::post_attn_ln;
        default:
            return family;
    }
}

/// Sizes that both layers have.
struct PairShape {
    std::int64_t heads = 0;         ///< H; 0: no attention in both, or of another shape
    std::int64_t kv_heads = 0;      ///< KV
    std::int64_t head_dim = 0;      ///< hd
    std::int64_t hidden = 0;        ///< D
    std::int64_t intermediate = 0;  ///< F; 0: no dense MLP in both, or of another shape
};

/// A family of both layers, of equal shape; stored.data is null where either lacks it.
struct FamilyPair {
    FoldedMatrix a, b;

    explicit operator bool() const noexcept { return a.stored.data != nullptr; }
};

struct LayerPair {
    std::int64_t layer = 0;  ///< number of the decoder layer b, for messages
    PairShape shape;
    /// Of the weights as stored, or with the norm weights folded in (input_ln into q, k, v; post_attn_ln into gate,
    /// up).
    std::array<FamilyPair, variation_family_count> families;

    const FamilyPair& of(WeightFamily family) const { return families[place_of(family)]; }
};

/// ||T a - b||_F of every family, by place in variation_families, where every matrix (of q, k, v, o every head's) has
/// unit norm and T is the gauge's best; q, k, v, o: mean over query heads, key head c(h) for head h. NaN: not measured,
/// or a matrix is zero.
class FamilyResiduals {
public:
    FamilyResiduals() { values_.fill(std::numeric_limits<double>::quiet_NaN()); }
    double& of(WeightFamily family) { return values_[place_of(family)]; }
    /// Share of the family's matrices for which other elements of the gauge are as near, so that the residual could as
    /// well be another.
    double& not_unique(WeightFamily family) { return not_unique_[place_of(family)]; }

    double value(std::size_t place) const noexcept { return values_[place]; }
    double not_unique(std::size_t place) const noexcept { return not_unique_[place]; }

private:
    std::array<double, variation_family_count> values_{}, not_unique_{};
};

/// One way to bring a layer as near to the next one as it allows. The measure itself compares input_ln, post_attn_ln,
/// q_norm and k_norm.
struct Gauge {
    std::string_view name;
    bool folded = false;  ///< is given the weights with the norm weights folded in; input_ln, post_attn_ln are NaN
    /// Sets q, k, v, o of a pair with heads > 0.
    void (*attention)(const LayerPair&, Backend&, FamilyResiduals&) = nullptr;
    /// Sets gate, up, down of a pair with intermediate > 0.
    void (*mlp)(const LayerPair&, Backend&, FamilyResiduals&) = nullptr;
    /// Bytes of the host's memory that attention, or mlp, takes for a pair of this shape, at most.
    std::int64_t (*attention_bytes)(const PairShape&, Backend&) = nullptr;
    std::int64_t (*mlp_bytes)(const PairShape&, Backend&) = nullptr;
    /// Flops of fp64 products that take as long; null: not worth counting.
    std::int64_t (*attention_flops)(const PairShape&) = nullptr;
    std::int64_t (*mlp_flops)(const PairShape&) = nullptr;
};

/// In the order of the axis `gauge`: none, rotation, none_folded, function (variation.cpp lists them).
std::span<const Gauge> gauges();

}  // namespace geom
