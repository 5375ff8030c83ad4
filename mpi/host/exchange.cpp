#include "mpi/host/exchange.hpp"

#include <vector>

#include "mpi/native.hpp"
#include "mpi/pieces.hpp"

namespace geom {

// Messages of one pair of ranks keep their order (MPI's non-overtaking rule), so one tag serves.
void exchange_with_others(const Communicator& communicator, std::span<const Message> sends,
                          std::span<const Message> receives) {
    std::vector<MPI_Request> requests;
    for (const Message& message : receives) {
        if (message.peer != communicator.rank()) receive_pieces(communicator, message, requests);
    }
    for (const Message& message : sends) {
        if (message.peer != communicator.rank()) send_pieces(communicator, message, requests);
    }
    wait_all(communicator, requests.data(), requests.size(), "weights from other ranks");
}

}  // namespace geom
