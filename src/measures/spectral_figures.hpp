// The numbers that people read off the singular values of a weight matrix.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/matrices.hpp"

namespace geom {

/// A number of a matrix, as it is named in the file.
struct SpectralFigure {
    const char* name;
    const char* long_name;
    const char* missing;  ///< why it may be NaN; empty when it cannot be
};

inline constexpr int spectral_figure_count = 23;
extern const std::array<SpectralFigure, spectral_figure_count> spectral_figures;

/// Their values, in the order of spectral_figures, of a matrix of this size. `spectrum` is finite; values that are at
/// most eps s_1 min(rows, cols) are set to 0 in it.
std::array<double, spectral_figure_count> figures_of(SingularValues& spectrum, const MatrixSize& size);

/// What is not known of a spectrum, relative to what is known.
struct SpectralDoubt {
    double least = 0;            ///< relative error of the smallest value, at most
    double eff_rank = 0;         ///< of the effective rank, at most
    double eff_rank_energy = 0;  ///< of that of the energy, at most
    std::int64_t values = 0;     ///< values from a Gram matrix whose relative error may be above 1e-9
};
SpectralDoubt doubt_of(const SingularValues& spectrum);

}  // namespace geom
