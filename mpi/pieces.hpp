// Messages of any size as MPI calls of at most 1 GiB: counts are ints, and transports have limits of their own.
#pragma once

#include <mpi.h>

#include <vector>

#include "mpi/collectives.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Starts the sends; the requests are appended. Nothing is sent for an empty message.
void send_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests);
void receive_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests);

}  // namespace geom
