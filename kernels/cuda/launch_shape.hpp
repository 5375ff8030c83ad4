// How many threads a kernel is started with.
#pragma once

#include <vector_types.h>

#include <cstddef>

namespace geom::cuda {

struct LaunchShape {
    dim3 grid;
    dim3 block;
    std::size_t shared_bytes = 0;  ///< of dynamic shared memory
};

}  // namespace geom::cuda
