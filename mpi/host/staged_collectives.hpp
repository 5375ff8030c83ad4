// Collectives over MPI from and to memory of a device that MPI cannot reach: by way of the host's.
#pragma once

#include <memory>

#include "core/queue.hpp"
#include "mpi/collectives.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// `queue` is a device's, and outlives what is returned.
std::unique_ptr<Collectives> make_staged_collectives(const Communicator& communicator, Queue& queue);

}  // namespace geom
