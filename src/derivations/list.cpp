// The derivations of this build, in the order in which they are computed. A line each.
#include <array>

#include "derivations/analysis.hpp"
#include "derivations/derivation.hpp"
#include "derivations/labels.hpp"
#include "derivations/legacy_analysis.hpp"
#include "derivations/matching.hpp"
#include "derivations/phases.hpp"

namespace geom {

std::span<const Derivation> derivations() {
    static const std::array all{
        labels_derivation(),          matching_derivation(), analysis_derivation(),
        legacy_analysis_derivation(), phases_derivation(),
    };
    return all;
}

}  // namespace geom
