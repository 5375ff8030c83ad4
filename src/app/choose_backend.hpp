// Which backend a run computes on, and how its ranks exchange blocks.
#pragma once

#include <memory>
#include <string>

#include "app/machine.hpp"
#include "kernels/backend.hpp"
#include "mpi/collectives.hpp"

namespace geom {

/// `name`: auto, cpu or cuda; auto is cuda where every rank has a GPU. Throws Error(usage) when cuda is asked for and a
/// rank has no GPU, and when two ranks would share one, unless the environment says GEOM_MPI_SHARE_GPU=1.
std::unique_ptr<Backend> make_backend(const std::string& name, const Machine& machine);

/// Blocks in GPUs' memory go from GPU to GPU (NCCL); else through the hosts' memory (MPI). NCCL wants a card of its own
/// for every rank, not parts of one.
bool exchanges_on_device(const Machine& machine, int ranks);

/// Collective. For blocks in the backend's memory.
std::unique_ptr<Collectives> make_collectives(Backend& backend, const Machine& machine,
                                              const Communicator& communicator);

}  // namespace geom
