// What a rank finds itself on, and what the ranks make of it together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cpu/isa.hpp"
#include "kernels/gpu.hpp"
#include "mpi/communicator.hpp"

namespace geom {

struct Machine {
    std::string host;
    int threads = 1;            ///< this rank's
    Isa isa = Isa::portable;    ///< of the processors' products; every rank has it
    std::int64_t budget = 0;    ///< bytes of host memory a rank may use; the smallest of all ranks
    std::int64_t resident = 0;  ///< bytes a rank has before it starts; the largest of all ranks

    // Of every rank, in rank order; empty where GPUs were not asked for.
    std::vector<std::string> places;     ///< "HOST, GPU 0: NVIDIA H100, NUMA node 1", or why there is none
    std::vector<std::string> gpu_ids;    ///< what tells one GPU from another; "" for a rank without
    std::vector<std::string> gpu_cards;  ///< the same of cards, of which several GPUs may be parts (MIG)
    std::optional<Gpu> gpu;              ///< this rank's
    std::int64_t device_budget = 0;      ///< bytes of its memory a rank may use; the smallest of all ranks
    bool every_rank_has_gpu() const noexcept;
};

/// What was asked for on the command line; 0: nothing.
struct MachineRequest {
    int threads = 0;
    std::int64_t budget = 0;
    bool gpus = true;  ///< whether to look for them, which starts the driver
};

/// Collective. Threads default to OMP_NUM_THREADS, else to the cores this rank is bound to divided by the ranks of the
/// node bound to the same ones; the budget to 0.8 of the node's (or the container's) free memory divided by its ranks,
/// and of the GPU's free memory. Rank i of a node gets GPU i, modulo their number.
Machine inspect_machine(const MachineRequest& request, const Communicator& communicator);

/// Largest and current resident memory of this process, bytes.
std::int64_t peak_resident_bytes();
std::int64_t resident_bytes();

/// Throws Error(usage) when a limit on the process's address space leaves too little for the libraries of so many
/// threads.
void check_address_space(int threads);

}  // namespace geom
