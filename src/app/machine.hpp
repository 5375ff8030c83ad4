// What a rank finds itself on, and what the ranks make of it together.
#pragma once

#include <cstdint>
#include <string>

#include "mpi/communicator.hpp"

namespace geom {

struct Machine {
    std::string host;
    int threads = 1;            ///< this rank's
    bool amx = false;           ///< every rank has AMX
    std::int64_t budget = 0;    ///< bytes a rank may use; the smallest of all ranks
    std::int64_t resident = 0;  ///< bytes a rank has before it starts; the largest of all ranks
};

/// Collective. `threads` and `budget`: as asked for, or 0. Threads default to OMP_NUM_THREADS, else to the cores this
/// rank is bound to divided by the ranks of the node bound to the same ones; the budget to 0.8 of the node's (or the
/// container's) free memory divided by its ranks.
Machine look_around(int threads, std::int64_t budget, const Communicator& communicator);

std::string host_name();

/// Largest and current resident memory of this process, bytes.
std::int64_t peak_resident_bytes();
std::int64_t resident_bytes();

}  // namespace geom
