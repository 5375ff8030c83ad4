// Names for what axes count.
#pragma once

#include "derivations/derivation.hpp"

namespace geom {

/// kv_head[head]: the key/value head that query heads share in every layer, by head.
Derivation labels_derivation();

}  // namespace geom
