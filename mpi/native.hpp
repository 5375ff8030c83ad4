// The MPI handle behind a Communicator; for mpi/ and output/hdf5_file.cpp only.
#pragma once

#include <mpi.h>

#include "mpi/communicator.hpp"

namespace geom {

MPI_Comm native(const Communicator& communicator);

/// Throws Error(internal) with MPI's own words when `status` is not MPI_SUCCESS.
void check_mpi(int status, const char* call);

/// Polls until every request is done; see Communicator::set_deadline. `what` names the operation in the message.
void wait_all(const Communicator& communicator, MPI_Request* requests, std::size_t count, const char* what);

}  // namespace geom
