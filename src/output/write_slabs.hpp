// Numbers from all ranks into one file, past HDF5 and MPI-IO: a variable's numbers lie in one piece, at a place that
// HDF5 names, so that each rank writes its boxes there itself, and a failure on one rank holds up no other.
//
//   gram [layer, layer_b, head]   rank 0: layers 0 1 -> bytes [offset, offset + 2 row)   rank 1: layers 2 3 -> the rest
#pragma once

#include <filesystem>
#include <vector>

#include "mpi/communicator.hpp"
#include "output/records.hpp"

namespace geom {

/// Collective; a rank without slabs takes part with none. On disk when this returns. Throws AgreedError when some rank
/// does not see the file, Error(output) on its own when this rank cannot write: callers agree on it.
void write_slabs(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs,
                 const Communicator& communicator);

/// A part of a box that lies in one piece in the whole variable. In elements.
struct Run {
    std::int64_t at = 0;    ///< in the variable
    std::int64_t from = 0;  ///< in the box
    std::int64_t count = 0;
};

/// The box [start, start + count) of a variable of `shape`, row-major, as few runs as can be.
std::vector<Run> runs_of(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& start,
                         const std::vector<std::int64_t>& count);

}  // namespace geom
