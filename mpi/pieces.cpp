#include "mpi/pieces.hpp"

#include <algorithm>

#include "mpi/native.hpp"

namespace geom {

namespace {

constexpr int data_tag = 1;

template <class Start>
void in_pieces(const Message& message, std::int64_t limit, std::vector<MPI_Request>& requests, Start&& start) {
    for (std::int64_t done = 0; done < message.bytes; done += limit) {
        const int count = static_cast<int>(std::min(limit, message.bytes - done));
        start(message.data + done, count, &requests.emplace_back(MPI_REQUEST_NULL));
    }
}

}  // namespace

void send_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests,
                 std::int64_t limit) {
    in_pieces(message, limit, requests, [&](std::byte* data, int count, MPI_Request* request) {
        check_mpi(MPI_Isend(data, count, MPI_BYTE, message.peer, data_tag, native(communicator), request), "MPI_Isend");
    });
}

void receive_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests,
                    std::int64_t limit) {
    in_pieces(message, limit, requests, [&](std::byte* data, int count, MPI_Request* request) {
        check_mpi(MPI_Irecv(data, count, MPI_BYTE, message.peer, data_tag, native(communicator), request), "MPI_Irecv");
    });
}

}  // namespace geom
