// A derivation: numbers that follow from numbers of the file alone. Run on rank 0 before the result gets its name, and
// on a finished file alike; reads boxes of variables, never a whole large one. Adding one takes a file that defines it,
// its line in list.cpp, and a test.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "output/records.hpp"
#include "output/result_file.hpp"

namespace geom {

struct Derivation {
    std::string_view name;  ///< of its group and its phase

    /// Its variables and scales, given what measures declare; nothing where its inputs are not there.
    Schema (*declare)(const Schema& present) = nullptr;

    /// Emits every element of what it declared, once. `schema` holds all of the file.
    void (*compute)(const ResultReader& file, const Schema& schema, const std::function<void(Slab)>& emit) = nullptr;
};

/// All derivations of this build, in the order in which they are computed (list.cpp).
std::span<const Derivation> derivations();

/// `measured` and what can be derived from it.
Schema with_derivations(Schema measured);

}  // namespace geom
