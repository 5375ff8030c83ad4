// The MPI handle behind a Communicator; for mpi/ and output/hdf5_file.cpp only.
#pragma once

#include <mpi.h>

#include "mpi/communicator.hpp"

namespace geom {

MPI_Comm native(const Communicator& communicator);

/// Throws Error(internal) with MPI's own words when `status` is not MPI_SUCCESS.
void check_mpi(int status, const char* call);

/// wait_until() (mpi/wait.hpp) every request is done.
void wait_all(const Communicator& communicator, MPI_Request* requests, std::size_t count, const char* what);

}  // namespace geom
