// One set of tied rows, turned: the CPU body of Matrices::turned_residuals.
#pragma once

#include "kernels/alignment.hpp"
#include "kernels/cpu/product_tiles.hpp"

namespace geom::cpu {

/// What a set takes. In doubles.
struct TurningDoubles {
    std::int64_t shared = 0;   ///< one for the set
    std::int64_t scratch = 0;  ///< of each thread of the team
};
TurningDoubles turning_doubles(std::int64_t rows, std::int64_t width, Turn turn);

/// `shared` and the team's scratch as turning_doubles says. Throws Error(numerics) for NaN and infinity.
TurnedResiduals turned_residuals_of(const Team& team, GramPath path, const TiedRows& set, Turn turn, double* shared);

}  // namespace geom::cpu
