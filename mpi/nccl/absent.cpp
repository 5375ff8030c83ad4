// A build without NCCL.
#include "core/error.hpp"
#include "mpi/collectives.hpp"

namespace geom {

bool have_nccl() noexcept { return false; }

std::string nccl_version() { return ""; }

std::unique_ptr<Collectives> make_nccl_collectives(const Communicator& /*communicator*/, Queue& /*queue*/,
                                                   int /*device*/) {
    throw Error(ExitCode::internal, "this build has no NCCL");
}

}  // namespace geom
