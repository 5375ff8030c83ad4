// The data plane: how blocks of numbers move between ranks, wherever they live. A virtual seam: mpi/host (MPI, host
// memory) and mpi/nccl (NCCL, device memory).
//
// exchange() on 2 ranks, each holding a layer (a, b) of two heads (0, 1), rank r owning head r:
//
//   BEFORE   rank 0: a0 a1 | __ __     AFTER   rank 0: a0 a1 | a0 b0
//            rank 1: b0 b1 | __ __             rank 1: b0 b1 | a1 b1
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "mpi/communicator.hpp"

namespace geom {

/// Bytes that go to, or come from, one rank.
struct Message {
    int peer = 0;
    std::byte* data = nullptr;
    std::int64_t bytes = 0;
};

class Collectives {
public:
    virtual ~Collectives() = default;
    virtual std::string name() const = 0;  ///< "mpi" or "nccl"

    /// Collective. The i-th message from rank a to rank b in a's `sends` is the i-th from a in b's `receives`; their
    /// sizes agree. A rank may send to itself. Returns when the receives are complete and the sends' memory is free.
    /// Any size, also beyond 2 GiB. Throws Error(internal) on a transport failure or a passed deadline.
    virtual void exchange(std::span<const Message> sends, std::span<const Message> receives) = 0;
};

/// Over MPI, from and to host memory.
std::unique_ptr<Collectives> make_host_collectives(const Communicator& communicator);

}  // namespace geom
