// Collectives over MPI. Messages of one pair of ranks keep their order (MPI's non-overtaking rule), so one tag serves.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/error.hpp"
#include "mpi/collectives.hpp"
#include "mpi/native.hpp"
#include "mpi/pieces.hpp"

namespace geom {

namespace {

class HostCollectives final : public Collectives {
public:
    explicit HostCollectives(const Communicator& communicator) : communicator_(communicator) {}

    std::string name() const override { return "mpi"; }

    void exchange(std::span<const Message> sends, std::span<const Message> receives) override {
        std::vector<MPI_Request> requests;
        for (const Message& message : receives) {
            if (message.peer != communicator_.rank()) receive_pieces(communicator_, message, requests);
        }
        for (const Message& message : sends) {
            if (message.peer != communicator_.rank()) send_pieces(communicator_, message, requests);
        }
        copy_own(sends, receives);
        wait_all(communicator_, requests.data(), requests.size(), "weights from other ranks");
    }

private:
    // Messages to oneself, matched in order.
    void copy_own(std::span<const Message> sends, std::span<const Message> receives) const {
        const int self = communicator_.rank();
        auto receive = receives.begin();
        for (const Message& send : sends) {
            if (send.peer != self) continue;
            while (receive != receives.end() && receive->peer != self) ++receive;
            if (receive == receives.end() || receive->bytes != send.bytes) {
                throw Error(ExitCode::internal, "a message to oneself has no counterpart of its size");
            }
            std::memcpy(receive->data, send.data, static_cast<std::size_t>(send.bytes));
            ++receive;
        }
        if (std::any_of(receive, receives.end(), [self](const Message& message) { return message.peer == self; })) {
            throw Error(ExitCode::internal, "a message from oneself was never sent");
        }
    }

    Communicator communicator_;
};

}  // namespace

std::unique_ptr<Collectives> make_host_collectives(const Communicator& communicator) {
    return std::make_unique<HostCollectives>(communicator);
}

}  // namespace geom
