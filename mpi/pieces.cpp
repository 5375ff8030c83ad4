#include "mpi/pieces.hpp"

#include <algorithm>

#include "mpi/native.hpp"

namespace geom {

namespace {

constexpr std::int64_t piece_bytes = std::int64_t{1} << 30;
constexpr int data_tag = 1;

template <class Start>
void in_pieces(const Message& message, std::vector<MPI_Request>& requests, Start&& start) {
    for (std::int64_t done = 0; done < message.bytes; done += piece_bytes) {
        const int count = static_cast<int>(std::min(piece_bytes, message.bytes - done));
        start(message.data + done, count, &requests.emplace_back(MPI_REQUEST_NULL));
    }
}

}  // namespace

void send_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests) {
    in_pieces(message, requests, [&](std::byte* data, int count, MPI_Request* request) {
        check_mpi(MPI_Isend(data, count, MPI_BYTE, message.peer, data_tag, native(communicator), request), "MPI_Isend");
    });
}

void receive_pieces(const Communicator& communicator, const Message& message, std::vector<MPI_Request>& requests) {
    in_pieces(message, requests, [&](std::byte* data, int count, MPI_Request* request) {
        check_mpi(MPI_Irecv(data, count, MPI_BYTE, message.peer, data_tag, native(communicator), request), "MPI_Irecv");
    });
}

}  // namespace geom
