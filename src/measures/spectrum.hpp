// Numbers that are read off spectra, and the order and signs in which spectra are stored: for every measure alike.
#pragma once

#include <cstddef>
#include <span>

namespace geom {

/// What singular values say of a matrix's rank; NaN for a zero matrix but for its energy.
struct SpectrumRanks {
    double energy = 0;           ///< sum s^2 = ||A||_F^2
    double eff_rank = 0;         ///< exp(-sum p ln p), p = s / sum s (Roy & Vetterli 2007)
    double eff_rank_energy = 0;  ///< the same of p = s^2 / sum s^2
    double stable_rank = 0;      ///< sum s^2 / s_1^2
};

/// `descending`: singular values, none negative, at least one. Sums go from the smallest to the largest.
SpectrumRanks ranks_of(std::span<const double> descending);

/// Eigenvalues of a symmetric matrix by descending magnitude. Magnitudes that differ by rounding alone (tie) count as
/// equal: the positive ones first.
void order_symmetric_eigenvalues(std::span<double> values, double tie);

/// Eigenvalues of a real matrix, conjugates adjacent with the positive imaginary part first, by descending magnitude;
/// among equal magnitudes (up to `tie`) by descending real part.
void order_eigenvalues(std::span<double> re, std::span<double> im, double tie);

/// Half of the ascending eigenvalues are negative, half positive; one within `noise` of 0 may have the wrong sign.
void restore_inertia(std::span<double> ascending, double noise);

/// The lowest index whose entry is the largest in magnitude; entries that differ by rounding alone count as equal. Its
/// sign is the one that a singular vector is given.
std::size_t leading_entry(std::span<const double> vector);

}  // namespace geom
