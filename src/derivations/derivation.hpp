// A derivation: numbers that follow from numbers of the file alone. Run on rank 0 before the result gets its name, and
// on a finished file alike; reads boxes of variables, never a whole large one. Adding one takes a file that defines it,
// its line in list.cpp, and a test.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "output/records.hpp"
#include "output/result_file.hpp"

namespace geom {

/// Options that change what is derived.
struct DerivationSettings {
    std::int64_t anchor = -1;  ///< a decoder layer's number; negative: counted from the last layer back
};

/// What every derivation gets.
struct DerivationContext {
    const ResultReader& file;
    const Schema& schema;  ///< of all the file
    DerivationSettings settings;
    std::function<void(const Slab&)> emit;
    std::function<void(const Attribute&)> set;
};

struct Derivation {
    std::string_view name;  ///< of its phase

    /// Its variables and scales, given what is measured and derived before it; nothing where its inputs are not there.
    Schema (*declare)(const Schema& present) = nullptr;

    /// Emits every element of what it declared, once.
    void (*compute)(const DerivationContext& context) = nullptr;
};

/// All derivations of this build, in the order in which they are computed (list.cpp).
std::span<const Derivation> derivations();

/// `measured` and what can be derived from it.
Schema with_derivations(Schema measured);

}  // namespace geom
