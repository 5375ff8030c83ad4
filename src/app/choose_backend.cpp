#include "app/choose_backend.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "core/error.hpp"

namespace geom {

namespace {

/// GEOM_MPI_SHARE_GPU: "1" lets ranks share a card, for tests on a machine with one; "nccl" has them exchange over NCCL
/// all the same, which NCCL allows only with settings of its own.
std::string_view sharing() {
    const char* value = std::getenv("GEOM_MPI_SHARE_GPU");
    return value == nullptr ? std::string_view() : std::string_view(value);
}

/// The first two ranks whose entries are the same, or -1.
std::pair<int, int> sharing_ranks(const std::vector<std::string>& of_ranks) {
    for (std::size_t a = 0; a < of_ranks.size(); ++a) {
        for (std::size_t b = a + 1; b < of_ranks.size(); ++b) {
            if (of_ranks[a] == of_ranks[b]) return {static_cast<int>(a), static_cast<int>(b)};
        }
    }
    return {-1, -1};
}

void check_gpus(const Machine& machine) {
    for (std::size_t rank = 0; rank < machine.gpu_ids.size(); ++rank) {
        if (!machine.gpu_ids[rank].empty()) continue;
        throw Error(ExitCode::usage, fmt::format("--backend cuda: rank {} is on {}; use --backend cpu or auto", rank,
                                                 machine.places[rank]));
    }
}

void check_sharing(const Machine& machine) {
    const auto [a, b] = sharing_ranks(machine.gpu_ids);
    if (a < 0 || !sharing().empty()) return;
    throw Error(ExitCode::usage,
                fmt::format("ranks {} and {} would share a GPU ({}): start one rank a GPU (Slurm: --ntasks-per-node = "
                            "--gpus-per-node, --gpu-bind=none), or use --backend cpu; GEOM_MPI_SHARE_GPU=1 allows it",
                            a, b, machine.places[static_cast<std::size_t>(a)]));
}

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& name, const Machine& machine) {
    if (name == "cuda") check_gpus(machine);
    if (name == "cpu" || !machine.every_rank_has_gpu()) return make_cpu_backend(machine.threads, machine.isa);
    check_sharing(machine);
    return make_cuda_backend(machine.gpu->index, machine.threads);
}

bool exchanges_on_device(const Machine& machine, int ranks) {
    if (ranks == 1 || !have_nccl() || !machine.every_rank_has_gpu()) return false;
    return sharing_ranks(machine.gpu_cards).first < 0 || sharing() == "nccl";
}

std::unique_ptr<Collectives> make_collectives(Backend& backend, const Machine& machine,
                                              const Communicator& communicator) {
    if (backend.on_device() && exchanges_on_device(machine, communicator.size())) {
        return make_nccl_collectives(communicator, backend.queue(), machine.gpu->index);
    }
    return make_host_collectives(communicator, backend.queue());
}

}  // namespace geom
