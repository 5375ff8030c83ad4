// What cosines of QK operators g = W_K^T W_Q (D x D, singular values s) are when nothing relates them.
//
//   two-sided      g -> U g V, U and V Haar, for each operator: mean 0, sd 1/D exactly; z = cos D
//   shared basis   g -> R g R^T, R Haar: one rotation of the residual stream's basis; trace, symmetric and
//   antisymmetric
//                  part stay what they are, so the mean is not 0
//
// Moments: the two-sided ones from E U_ij^2 = 1/D; those of one rotation from orthogonal invariance of second order
// (traceless symmetric matrices are an irreducible representation of O(D), of dimension (D-1)(D+2)/2; antisymmetric
// ones another, of dimension D(D-1)/2; Schur's lemma gives <S, R S' R^T> the variance |S|^2 |S'|^2 / dimension).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace geom {

/// p of |z| under the standard normal.
double normal_tail(double z);

/// PR = (sum s^2)^2 / sum s^4 of singular values; NaN (padding) left out, NaN for a zero operator. cos D of two
/// operators has excess kurtosis of about 6/(PR PR').
double participation_ratio(std::span<const double> singular_values);

/// Below this product of participation ratios, cos D is not taken for normal.
inline constexpr double steep_product = 50.0;

// --- one rotation of the basis ---

/// What a rotation of the basis leaves of an operator, over its norm.
struct Invariants {
    double trace = 0.0;          ///< tr g / |g|
    double symmetric = 0.0;      ///< |S|^2 / |g|^2, S the traceless symmetric part
    double antisymmetric = 0.0;  ///< |A|^2 / |g|^2, A the antisymmetric part
};

/// From tr g, |g|^2 and asymmetry = |g - g^T| / |g|: |A|^2 = asymmetry^2 |g|^2 / 4, and |g|^2 = |S|^2 + |A|^2 + (tr
/// g)^2/D.
Invariants invariants_of(double trace, double norm_sq, double asymmetry, std::int64_t hidden);

struct Null {
    double mean = 0.0, sd = 0.0;
};

/// Of the cosine: mean tr g tr g' / (D |g| |g'|), variance (|S|^2 |S'|^2 / ((D-1)(D+2)/2) + |A|^2 |A'|^2 / (D(D-1)/2))
/// over |g|^2 |g'|^2.
Null shared_basis_null(const Invariants& left, const Invariants& right, std::int64_t hidden);

// --- steep spectra ---

/// Energies w = s^2 / sum s^2 of operators, descending.
struct Energies {
    std::int64_t operators = 0, rank = 0;
    std::vector<double> shares;  ///< [operators, rank]; 0 for padding and for zero operators
};

/// `singular_values` is [operators, rank], descending; NaN is padding.
Energies energies_of(std::span<const double> singular_values, std::int64_t rank);

/// Two operators and the z = cos D that was measured.
struct SteepPair {
    std::int64_t left = 0, right = 0;  ///< indices into Energies
    double z = 0.0;
};

/// p of |z| for each pair where z is distributed as sum_ij s_i s'_j a_ij b_ij / (|s| |s'|), a and b standard normal:
/// the two-sided null for large D. Given a, z is normal with variance v(a) = sum_ij w_i w'_j a_ij^2: a is drawn
/// `samples` times and the normal tails are averaged, so that small p cost no more samples than large ones. Terms that
/// make up less than a thousandth of the variance of v count by their mean. Pairs of equal `left` cost least side by
/// side.
std::vector<double> simulated_tails(const Energies& energies, std::span<const SteepPair> pairs, std::int64_t samples,
                                    std::uint64_t seed);

// --- matched heads ---

/// Mean over heads of |z| after the best nested assignment of H heads to H others that nothing relates: a maximum, and
/// not 0. Simulated for z normal with variance chi^2_m / m, whose excess kurtosis 6/m stands for that of operators with
/// 1/(PR PR') = 1/m (flat spectra: m infinite); linear in 1/m between those that were simulated.
class MatchedNull {
public:
    MatchedNull(std::int64_t heads, std::int64_t group_size, std::uint64_t seed);

    /// `steepness`: mean over pairs of heads of 1/(PR PR'), in [0, 1].
    double mean_abs_z(double steepness) const;

private:
    std::vector<double> at_;  // of the steepnesses that were simulated
};

// --- signs ---

/// Deviation of the share of equal signs among the leading k symmetric eigenvalues of two heads that nothing relates,
/// from its mean 1/2, for each of `leading`. Simulated: g of iid W_Q, W_K [head_dim, hidden]. Both signs of a head are
/// equally likely, which makes the mean 1/2 and heads that share a key uncorrelated: over H heads it is this over
/// sqrt(H).
std::vector<double> sign_agreement_sd(std::int64_t head_dim, std::int64_t hidden, std::span<const std::int32_t> leading,
                                      std::uint64_t seed);

// --- many at once ---

/// How many of the hypotheses (NaN: none) Benjamini and Hochberg (1995) reject at a false discovery rate of `level`, as
/// a share of all; NaN when there are none.
double share_beyond(std::span<const double> p, double level);

}  // namespace geom
