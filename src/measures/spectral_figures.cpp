#include "measures/spectral_figures.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "measures/marchenko_pastur.hpp"
#include "measures/power_law.hpp"
#include "measures/spectrum.hpp"

namespace geom {

namespace {

constexpr const char* zero = "the matrix is zero, or the layer has no such matrix";
constexpr const char* absent = "the layer has no such matrix";
constexpr const char* unfit = "fewer than ten different values, or the layer has no such matrix";

/// The smallest n whose n largest squares reach `share` of the sum of all.
double reaches(std::span<const double> cumulative, double share) {
    const double goal = share * cumulative.back();
    const auto found = std::find_if(cumulative.begin(), cumulative.end(), [=](double sum) { return sum >= goal; });
    return static_cast<double>(found - cumulative.begin() + 1);
}

/// Bound of the error of the entropy -sum p ln p, p = w / sum w, when weight i is wrong by at most error(i). For
/// f(x) = x ln x, |f(x + r) - f(x)| <= r (1 + |ln(least argument)|), and <= r (1 + |ln r|) down to 0; and a sum that is
/// wrong by the factor 1 + e moves the entropy by e (1 + entropy).
template <class Error>
double entropy_error(std::span<const double> weights, Error error) {
    const double sum = std::accumulate(weights.rbegin(), weights.rend(), 0.0);
    if (!(sum > 0)) return 0;
    double moved = 0, shares = 0, entropy = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const double p = weights[i] / sum, r = error(i) / sum;
        if (p > 0) entropy -= p * std::log(p);
        if (!(r > 0)) continue;
        const double least = p > 2 * r ? p - r : r;
        moved += r * (1 + std::abs(std::log(least)));
        shares += r;
    }
    return moved + shares * (1 + entropy);
}

/// Of value s, given what is known of it or of its square.
double value_error(const SingularValues& spectrum, double s) {
    if (spectrum.square_error == 0) return spectrum.error;
    const double square = s * s, error = spectrum.square_error;
    return square > error ? s - std::sqrt(square - error) : std::max(s, std::sqrt(square + error) - s);
}

}  // namespace

const std::array<SpectralFigure, spectral_figure_count> spectral_figures{{
    {"eff_rank", "effective rank (Roy and Vetterli): exp of the entropy of s / sum s", zero},
    {"eff_rank_energy", "effective rank of the energy: exp of the entropy of s^2 / sum s^2", zero},
    {"stable_rank", "stable rank: sum s^2 / s_1^2", zero},
    {"spectral_norm", "largest singular value s_1", absent},
    {"fro_norm", "Frobenius norm: sqrt(sum s^2)", absent},
    {"condition", "condition: s_1 over the smallest singular value; inf when that is 0", absent},
    {"n50", "smallest number of singular values with 50% of sum s^2", zero},
    {"n75", "smallest number of singular values with 75% of sum s^2", zero},
    {"n90", "smallest number of singular values with 90% of sum s^2", zero},
    {"n95", "smallest number of singular values with 95% of sum s^2", zero},
    {"n99", "smallest number of singular values with 99% of sum s^2", zero},
    {"mp_eff_rank", "effective rank of a matrix of this shape with independent entries (Marchenko and Pastur)", absent},
    {"mp_outliers", "s^2 above the Marchenko-Pastur edge and the 99.9% quantile of Tracy and Widom", absent},
    {"alpha", "exponent of a power law fitted to the largest s^2 (Clauset, Shalizi and Newman)", unfit},
    {"alpha_se", "standard error of alpha: (alpha - 1) / sqrt n", unfit},
    {"alpha_xmin", "s^2 from which on the power law was fitted", unfit},
    {"direct", "1: singular values of the matrix itself; 0: roots of the eigenvalues of its Gram matrix", absent},
    {"doubtful", "singular values whose relative error may be above 1e-9", absent},
    {"least_error", "bound of the relative error of the smallest singular value", absent},
    {"eff_rank_error", "bound of the relative error of eff_rank", absent},
    {"eff_rank_energy_error", "bound of the relative error of eff_rank_energy", absent},
    {"rows", "rows of the matrix", absent},
    {"cols", "columns of the matrix", absent},
}};

SpectralDoubt doubt_of(const SingularValues& spectrum) {
    const std::span<const double> s = spectrum.values;
    SpectralDoubt doubt;
    std::vector<double> squares(s.size());
    std::transform(s.begin(), s.end(), squares.begin(), [](double x) { return x * x; });
    doubt.eff_rank = std::expm1(entropy_error(s, [&](std::size_t i) { return value_error(spectrum, s[i]); }));
    doubt.eff_rank_energy = std::expm1(entropy_error(
        squares, [&](std::size_t i) { return spectrum.square_error + spectrum.error * (2 * s[i] + spectrum.error); }));
    const auto relative = [&](double value) {
        const double error = value_error(spectrum, value);
        return error == 0 ? 0.0 : value > error ? error / (value - error) : std::numeric_limits<double>::infinity();
    };
    doubt.least = relative(s.back());
    if (spectrum.square_error > 0)
        doubt.values = std::count_if(s.begin(), s.end(), [&](double value) { return relative(value) > 1e-9; });
    return doubt;
}

std::array<double, spectral_figure_count> figures_of(SingularValues& spectrum, const MatrixSize& size) {
    const SpectralDoubt doubt = doubt_of(spectrum);
    std::vector<double>& s = spectrum.values;
    const double noise = std::numeric_limits<double>::epsilon() * s[0] * static_cast<double>(s.size());
    std::replace_if(
        s.begin(), s.end(), [=](double value) { return value <= noise; }, 0.0);
    std::vector<double> squares(s.size()), cumulative(s.size());
    std::transform(s.begin(), s.end(), squares.begin(), [](double x) { return x * x; });
    std::partial_sum(squares.begin(), squares.end(), cumulative.begin());
    const SpectrumRanks ranks = ranks_of(s);
    const PowerLaw law = fit_power_law(squares);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto share = [&](double part) { return s[0] > 0 ? reaches(cumulative, part) : nan; };
    return {ranks.eff_rank,
            ranks.eff_rank_energy,
            ranks.stable_rank,
            s[0],
            std::sqrt(ranks.energy),
            s.back() > 0 ? s[0] / s.back() : std::numeric_limits<double>::infinity(),
            share(0.50),
            share(0.75),
            share(0.90),
            share(0.95),
            share(0.99),
            marchenko_pastur_eff_rank(size.rows, size.cols),
            static_cast<double>(marchenko_pastur_outliers(squares, size.rows, size.cols)),
            law.alpha,
            law.standard_error,
            law.xmin,
            spectrum.square_error > 0 ? 0.0 : 1.0,
            static_cast<double>(doubt.values),
            doubt.least,
            doubt.eff_rank,
            doubt.eff_rank_energy,
            static_cast<double>(size.rows),
            static_cast<double>(size.cols)};
}

}  // namespace geom
