// geom-mpi bench forward: a text's way through all layers of a shape.
#pragma once

#include <memory>

#include "app/bench_parts.hpp"

namespace geom {

/// 2048 tokens through the shape's number of layers, by the weights of its first four in turn; reading them, embedding
/// and lm_head are not part of what is timed.
std::unique_ptr<BenchPart> make_forward_part(const Checkpoint& checkpoint, Backend& backend);

}  // namespace geom
