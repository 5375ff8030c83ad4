// The data plane: how blocks of numbers move between ranks, wherever they live. A virtual seam: mpi/host (MPI; memory
// of the host, or of a device by way of the host's) and mpi/nccl (NCCL; memory of devices).
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

#include "core/queue.hpp"
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
    virtual std::string name() const = 0;  ///< as written to the result: "mpi", "mpi, staged" or "nccl"

    /// Collective. The i-th message from rank a to rank b in a's `sends` is the i-th from a in b's `receives`; their
    /// sizes agree. A rank may send to itself. What the queue was given before is done before anything is sent. Returns
    /// when the receives are complete and the sends' memory is free. Any size, also beyond 2 GiB. Throws
    /// Error(internal) on a message to oneself without its counterpart, a transport failure, or a passed deadline: then
    /// messages may still be on their way, so that the program has to end.
    virtual void exchange(std::span<const Message> sends, std::span<const Message> receives) = 0;
};

/// Over MPI, from and to the memory of `queue`, which outlives what is returned. A device's goes by way of staging
/// memory of the host, which is kept for the next exchange.
std::unique_ptr<Collectives> make_host_collectives(const Communicator& communicator, Queue& queue = host_queue());

/// Staging memory that one exchange on a device takes over MPI: all messages to others and from them.
std::int64_t staging_bytes(int rank, std::span<const Message> sends, std::span<const Message> receives);

/// Whether this build has NCCL; if not, mpi/nccl/absent.cpp stands in.
bool have_nccl() noexcept;
/// The library that is loaded, "NCCL 2.28.9"; empty without.
std::string nccl_version();

/// Collective. Over NCCL, among the memory of GPUs: `queue` is that of `device`, this rank's alone, and outlives what
/// is returned. To be made once: every one takes memory of the GPU. Throws Error(internal) without NCCL, when the ranks
/// cannot be connected, or when the deadline passes.
std::unique_ptr<Collectives> make_nccl_collectives(const Communicator& communicator, Queue& queue, int device);

}  // namespace geom
