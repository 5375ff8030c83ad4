// The measures of this build, in the order in which results are written. A line each.
#include <array>

#include "measures/gram.hpp"
#include "measures/heads.hpp"
#include "measures/legacy_heads.hpp"
#include "measures/match.hpp"
#include "measures/measure.hpp"
#include "measures/residual.hpp"
#include "measures/spectra.hpp"
#include "measures/variation.hpp"

namespace geom {

std::span<const Measure> measures() {
    static const std::array all{
        // clang-format off
        gram_measure(),
        folded_gram_measure(),
        heads_measure(),
        legacy_heads_measure(),
        match_measure(),
        spectra_measure(),
        variation_measure(),
        legacy_variation_measure(),
        residual_measure(),
        // clang-format on
    };
    return all;
}

}  // namespace geom
