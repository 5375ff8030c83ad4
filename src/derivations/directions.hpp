// What heads share with the same head of an anchor layer: signs of their leading eigenvalues, leading directions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "derivations/derivation.hpp"

namespace geom {

/// Share of equal signs among the first k of two lists of eigenvalues; what is NaN (padding) in one of them is left
/// out. NaN of nothing.
double sign_agreement(std::span<const double> left, std::span<const double> right, std::int64_t k);

/// Principal angles between the spans of two sets of unit rows [k, hidden]; rows of NaN are no part of them.
struct SubspaceAngles {
    double mean_cos = 0.0;  ///< of the min(k, k') principal angles
    double min_cos = 0.0;
    double overlap = 0.0;  ///< |U'^T U|^2, the sum of their squares
    double chance = 0.0;   ///< its expectation for directions that nothing relates: k k'/hidden
    double top1 = 0.0;     ///< (r_1 r'_1)^2
};

/// All NaN where one set has no rows. The rows of a set are orthogonal.
SubspaceAngles subspace_angles(std::span<const float> left, std::span<const float> right, std::int64_t hidden);

/// sign_agreement of every layer with the anchor, means over heads, for each of `leading`: [k, L]. `path` is a variable
/// [layer, head, eigenvalue], of which memory holds two layers.
std::vector<double> sign_agreements(const ResultReader& file, const std::string& path, std::int64_t anchor,
                                    std::span<const std::int32_t> leading);

/// Means over heads of SubspaceAngles with the anchor: [L] each.
struct AngleMeans {
    std::vector<double> mean_cos, min_cos, overlap, chance, top1;
};

/// `path` is a variable [layer, head, direction, hidden], of which memory holds two heads. `prepare` may change a
/// head's rows first.
AngleMeans angle_means(
    const ResultReader& file, const std::string& path, std::int64_t anchor,
    const std::function<void(std::span<float>)>& prepare = [](std::span<float>) {});

/// The scale of sign agreements of 2 to min(256, `length`) eigenvalues.
Scale leading_eigenvalues(std::int64_t length);

/// The part of group analysis that heads gives.
Schema declare_directions(const Schema& present);
void compute_directions(const DerivationContext& context, std::int64_t anchor);

}  // namespace geom
