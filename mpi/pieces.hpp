// Messages of any size as MPI calls of at most 1 GiB: counts are ints, and transports have limits of their own.
#pragma once

#include <mpi.h>

#include <vector>

#include "mpi/collectives.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Bytes that one call moves at most.
inline constexpr std::int64_t piece_limit = std::int64_t{1} << 30;

/// Starts the sends; the requests are appended. Nothing is sent for an empty message. Both sides use the same limit.
void send_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests,
                 std::int64_t limit = piece_limit);
void receive_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests,
                    std::int64_t limit = piece_limit);

}  // namespace geom
