// Every body of Collectives with the memory it works on, so that one test speaks to all of them.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.hpp"
#include "core/queue.hpp"
#include "kernels/gpu.hpp"
#include "mpi/collectives.hpp"
#include "mpi/communicator.hpp"
#include "support/fake_device.hpp"

namespace geom::test {

enum class Transport {
    host,           // MPI, memory of the host
    staged,         // MPI by way of staging memory, a fake device
    staged_on_gpu,  // the same, a GPU
    nccl,
};

inline std::string name_of(Transport transport) {
    switch (transport) {
        case Transport::host:
            return "host";
        case Transport::staged:
            return "staged";
        case Transport::staged_on_gpu:
            return "staged_on_gpu";
        case Transport::nccl:
            return "nccl";
    }
    return "";
}

inline std::ostream& operator<<(std::ostream& out, Transport transport) { return out << name_of(transport); }

/// Why this machine, with this number of ranks, cannot run it; empty when it can.
inline std::string why_not(Transport transport, const Communicator& world) {
    if (transport == Transport::host || transport == Transport::staged) return "";
    const VisibleGpus visible = visible_gpus();
    if (visible.gpus.empty()) return visible.why_none;
    if (transport != Transport::nccl) return "";
    if (!have_nccl()) return "this build has no NCCL";
    const char* shared = std::getenv("GEOM_MPI_SHARE_GPU");
    const bool may_share =
        visible.gpus[0].name.starts_with("emulated") || (shared != nullptr && std::string_view(shared) == "nccl");
    if (std::ssize(visible.gpus) >= world.node_size() || may_share) return "";
    return "NCCL needs a GPU for every rank; see GEOM_MPI_SHARE_GPU";
}

/// This rank's memory and queue for a transport.
class Body {
public:
    Body(Transport transport, const Communicator& world) : transport_(transport), world_(world) {
        if (transport != Transport::staged_on_gpu && transport != Transport::nccl) return;
        gpu_ = world.node_rank() % static_cast<int>(visible_gpus().gpus.size());
        // For all tests, and never given back: there may be no MPI, nor CUDA, when static objects go.
        static Backend* const backend = make_cuda_backend(gpu_, 1).release();
        static Backend* const other = make_cuda_backend(gpu_, 1).release();
        backend_ = backend;
        other_backend_ = other;
    }

    Queue& queue() {
        if (backend_ != nullptr) return backend_->queue();
        return transport_ == Transport::host ? host_queue() : fake_;
    }
    /// Of the same memory, and knows nothing of what lies in queue().
    Queue& other_queue() {
        if (backend_ != nullptr) return other_backend_->queue();
        return transport_ == Transport::host ? host_queue() : other_fake_;
    }
    FakeDevice& fake() { return fake_; }
    Buffer allocate(std::int64_t bytes) {
        if (backend_ != nullptr) return backend_->allocate(bytes);
        return transport_ == Transport::host ? allocate_host(bytes) : FakeDevice::allocate(bytes);
    }
    std::unique_ptr<Collectives> make() {
        if (transport_ == Transport::nccl) return make_nccl_collectives(world_, queue(), gpu_);
        return make_host_collectives(world_, queue());
    }

private:
    Transport transport_;
    const Communicator& world_;
    int gpu_ = 0;
    FakeDevice fake_, other_fake_;
    Backend* backend_ = nullptr;
    Backend* other_backend_ = nullptr;
};

/// Bytes in a body's memory.
class Contents {
public:
    /// The copy is issued and not waited for: an exchange comes after what its queue was given.
    Contents(Body& body, const std::vector<std::byte>& bytes)
        : body_(body), size_(bytes.size()), memory_(body.allocate(std::ssize(bytes))) {
        if (size_ == 0) return;
        staging_ = body.queue().allocate_staging(std::ssize(bytes));
        std::copy(bytes.begin(), bytes.end(), staging_.data());
        body.queue().copy(memory_.data(), staging_.data(), std::ssize(bytes));
    }

    std::byte* data() const { return memory_.data(); }

    /// Through the other queue: what is still under way in the body's own is not there yet.
    std::vector<std::byte> fetch() const {
        std::vector<std::byte> bytes(size_);
        if (size_ == 0) return bytes;
        Queue& queue = body_.other_queue();
        const Buffer back = queue.allocate_staging(memory_.size());
        queue.copy(back.data(), memory_.data(), memory_.size());
        queue.wait();
        std::memcpy(bytes.data(), back.data(), size_);
        return bytes;
    }

private:
    Body& body_;
    std::size_t size_;
    Buffer memory_, staging_;
};

}  // namespace geom::test
