// The messages of an exchange that go to other ranks and come from them, over MPI, in host memory.
#pragma once

#include <span>

#include "mpi/collectives.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Collectives::exchange() less the messages to oneself, which are passed over.
void exchange_with_others(const Communicator& communicator, std::span<const Message> sends,
                          std::span<const Message> receives);

}  // namespace geom
