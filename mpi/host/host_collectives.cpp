// Collectives over MPI, from and to memory of the host.
#include "core/queue.hpp"
#include "mpi/collectives.hpp"
#include "mpi/host/exchange.hpp"
#include "mpi/host/staged_collectives.hpp"
#include "mpi/own_copies.hpp"

namespace geom {

namespace {

class HostCollectives final : public Collectives {
public:
    HostCollectives(const Communicator& communicator, Queue& queue) : communicator_(communicator), queue_(queue) {}

    std::string name() const override { return "mpi"; }

    void exchange(std::span<const Message> sends, std::span<const Message> receives) override {
        for (const OwnCopy& own : own_copies(communicator_.rank(), sends, receives)) {
            queue_.copy(own.to, own.from, own.bytes);
        }
        queue_.wait();
        exchange_with_others(communicator_, sends, receives);
    }

private:
    Communicator communicator_;
    Queue& queue_;
};

}  // namespace

std::unique_ptr<Collectives> make_host_collectives(const Communicator& communicator, Queue& queue) {
    if (queue.space() == Space::device) return make_staged_collectives(communicator, queue);
    return std::make_unique<HostCollectives>(communicator, queue);
}

}  // namespace geom
