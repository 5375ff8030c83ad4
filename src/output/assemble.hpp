// From numbers where they were computed to contiguous slabs where they are written.
//
//   BEFORE   rank 0 holds gram[:, :, head 0]          AFTER   rank 0 holds gram[layers 0..1, :, :]
//            rank 1 holds gram[:, :, head 1]                  rank 1 holds gram[layers 2..3, :, :]
#pragma once

#include <vector>

#include "mpi/communicator.hpp"
#include "output/records.hpp"

namespace geom {

/// Collective. Each rank gives the slabs it computed; each gets its share of the rows (first axis) of every variable
/// any slab belongs to, as one slab a variable. Scalars go to rank 0. Throws Error(internal) when a variable's elements
/// were not computed exactly once.
std::vector<Slab> assemble(const Schema& schema, const std::vector<Slab>& computed, const Communicator& communicator);

/// The rows (first axis) of a variable that this rank writes, to be filled; without data where it writes none. A scalar
/// is rank 0's.
Slab own_rows(const Schema& schema, std::int64_t variable, const Communicator& communicator);

}  // namespace geom
