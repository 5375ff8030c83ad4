// One exchange, on the rank in the middle of three; messages to oneself stay on the device:
//
//   device   b0 b1 b2   ------->   b1 | a1 c1        sends: b0 b1 b2, receives: a1 b1 c1
//             |    |                     ^  ^
//   host     b0   b2   --- MPI --->     a1 c1        staging memory: sends first, then receives
#include "mpi/host/staged_collectives.hpp"

#include <vector>

#include "mpi/host/exchange.hpp"
#include "mpi/own_copies.hpp"

namespace geom {

namespace {

class StagedCollectives final : public Collectives {
public:
    StagedCollectives(const Communicator& communicator, Queue& queue) : communicator_(communicator), queue_(queue) {}

    std::string name() const override { return "mpi, staged"; }

    void exchange(std::span<const Message> sends, std::span<const Message> receives) override {
        const auto own = own_copies(communicator_.rank(), sends, receives);
        const std::int64_t needed = staging_bytes(communicator_.rank(), sends, receives);
        if (needed > staging_.size()) {
            staging_ = {};  // never both at once
            staging_ = queue_.allocate_staging(needed);
        }
        std::byte* free = staging_.data();
        const std::vector<Message> staged_sends = staged(sends, free);
        const std::vector<Message> staged_receives = staged(receives, free);

        copy_others(sends, staged_sends, true);
        for (const OwnCopy& copy : own) queue_.copy(copy.to, copy.from, copy.bytes);
        queue_.wait();
        exchange_with_others(communicator_, staged_sends, staged_receives);
        copy_others(receives, staged_receives, false);
        queue_.wait();
    }

private:
    // The messages to or from others, each where `free` points to, which moves on.
    std::vector<Message> staged(std::span<const Message> messages, std::byte*& free) const {
        std::vector<Message> result;
        for (const Message& message : messages) {
            if (message.peer == communicator_.rank()) continue;
            result.push_back({message.peer, free, message.bytes});
            free += message.bytes;
        }
        return result;
    }

    void copy_others(std::span<const Message> on_device, std::span<const Message> on_host, bool to_host) {
        auto host = on_host.begin();
        for (const Message& device : on_device) {
            if (device.peer == communicator_.rank()) continue;
            if (device.bytes > 0)
                queue_.copy(to_host ? host->data : device.data, to_host ? device.data : host->data, device.bytes);
            ++host;
        }
    }

    Communicator communicator_;
    Queue& queue_;
    Buffer staging_;
};

}  // namespace

std::int64_t staging_bytes(int rank, std::span<const Message> sends, std::span<const Message> receives) {
    std::int64_t bytes = 0;
    for (const auto& messages : {sends, receives}) {
        for (const Message& message : messages) bytes += message.peer == rank ? 0 : message.bytes;
    }
    return bytes;
}

std::unique_ptr<Collectives> make_staged_collectives(const Communicator& communicator, Queue& queue) {
    return std::make_unique<StagedCollectives>(communicator, queue);
}

}  // namespace geom
