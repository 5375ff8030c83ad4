// A unit of work: what is computed, recorded, and lost at most by a kill. Depends on the model alone, never on ranks or
// threads.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace geom {

/// What a unit is of, and so when it can be computed and what its two numbers say.
enum class UnitOf : std::uint8_t {
    layer,   ///< row of ModelShape::layers, index into Needs::together
    expert,  ///< row, expert
    global,  ///< index into ModelShape::globals, 0
    head,    ///< query head of all layers with attention, 0
    pair,    ///< query head of all layers, key/value group it is held against
};

struct Unit {
    std::string measure;
    UnitOf of = UnitOf::layer;
    std::int64_t first = 0;
    std::int64_t second = 0;
    friend auto operator<=>(const Unit&, const Unit&) = default;
};

}  // namespace geom
