#include "derivations/derivation.hpp"

namespace geom {

Schema with_derivations(Schema measured) {
    for (const Derivation& derivation : derivations()) measured.add(derivation.declare(measured));
    return measured;
}

}  // namespace geom
