// NCCL on emulated GPUs, over MPI: unique ids, communicators that do not block, grouped sends and receives of bytes.
// Stricter than NCCL where a mistake would pass unseen or hang: nothing connects and nothing enters the stream before
// ncclCommGetAsyncError has been asked; what is received must have the size that was announced; memory must be the
// device's. Point-to-point on MPI_COMM_WORLD with a tag of each communicator's own, since a collective call
// (MPI_Comm_dup) that a rank misses would spoil all that come after.
#include <fmt/format.h>
#include <mpi.h>
#include <nccl.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "emulator/runtime.hpp"

namespace {

namespace emulator = geom::emulator;

constexpr char magic[] = "an emulated id";

struct Transfer {
    bool sends = false;
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    int peer = 0;
    ncclComm_t comm = nullptr;
    cudaStream_t stream = nullptr;
};

void must(int status, const char* call) {
    if (status != MPI_SUCCESS) emulator::die(fmt::format("{} failed under the emulated NCCL", call));
}

bool all_done(std::vector<MPI_Request>& requests, MPI_Status* statuses) {
    int done = 0;
    must(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, statuses), "MPI_Testall");
    return done != 0;
}

}  // namespace

struct ncclComm {
    int rank = 0, size = 1, tag = 0;
    int device = 0;
    std::vector<MPI_Request> greetings;  // to and from all others, until all are connected
    std::vector<Transfer> begun;         // a group that has ended and is not in its stream yet
    bool asked = false;                  // for the state, since it ended
    int under_way = 0;                   // groups in streams
    bool finalized = false;
};

namespace {

int group_depth = 0;
std::vector<Transfer> group;
ncclResult_t group_failure = ncclSuccess;  // a group is issued as a whole or not at all
std::string last_error;

ncclResult_t refuse(ncclResult_t status, const std::string& why) {
    last_error = why;
    return status;
}

// One group on its way: from device memory, over MPI, to device memory. It never waits.
class Exchange {
public:
    Exchange(std::vector<Transfer> transfers, ncclComm* comm) : transfers_(std::move(transfers)), comm_(comm) {}

    bool advance() {
        if (requests_.empty()) start();
        std::vector<MPI_Status> statuses(requests_.size());
        if (!all_done(requests_, statuses.data())) return false;
        for (std::size_t t = 0; t < transfers_.size(); ++t) {
            const Transfer& transfer = transfers_[t];
            if (transfer.sends) continue;
            int count = 0;
            must(MPI_Get_count(&statuses[t], MPI_BYTE, &count), "MPI_Get_count");
            if (static_cast<std::size_t>(count) != transfer.bytes) {
                emulator::die(fmt::format("ncclRecv of {} bytes from rank {} met an ncclSend of {}", transfer.bytes,
                                          transfer.peer, count));
            }
            if (transfer.bytes > 0) std::memcpy(transfer.data, host_[t].data(), transfer.bytes);
        }
        --comm_->under_way;
        return true;
    }

private:
    void start() {
        for (const Transfer& transfer : transfers_) {
            std::vector<std::byte>& host = host_.emplace_back(transfer.bytes);
            const int count = static_cast<int>(transfer.bytes);
            MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
            if (transfer.sends) {
                if (transfer.bytes > 0) std::memcpy(host.data(), transfer.data, transfer.bytes);
                must(MPI_Isend(host.data(), count, MPI_BYTE, transfer.peer, comm_->tag, MPI_COMM_WORLD, &request),
                     "MPI_Isend");
            } else {
                must(MPI_Irecv(host.data(), count, MPI_BYTE, transfer.peer, comm_->tag, MPI_COMM_WORLD, &request),
                     "MPI_Irecv");
            }
        }
    }

    std::vector<Transfer> transfers_;
    ncclComm* comm_;
    std::vector<std::vector<std::byte>> host_;
    std::vector<MPI_Request> requests_;
};

ncclResult_t end_group() {
    if (const ncclResult_t failure = std::exchange(group_failure, ncclSuccess); failure != ncclSuccess) {
        group.clear();
        return failure;
    }
    if (group.empty()) return ncclSuccess;
    ncclComm* comm = group.front().comm;
    for (const Transfer& transfer : group) {
        if (transfer.comm != comm || transfer.stream != group.front().stream)
            emulator::die("the emulated NCCL knows groups of one communicator in one stream only");
    }
    if (!comm->begun.empty()) emulator::die("an NCCL group ended while the one before was not in its stream yet");
    comm->begun = std::move(group);
    comm->asked = false;
    group.clear();
    return ncclInProgress;
}

ncclResult_t add(Transfer transfer, ncclDataType_t type, const char* call) {
    if (type != ncclInt8) emulator::die("the emulated NCCL moves bytes only");
    if (transfer.comm == nullptr || transfer.comm->finalized)
        return refuse(ncclInvalidArgument, fmt::format("{}: not a communicator", call));
    if (!transfer.comm->greetings.empty()) emulator::die(fmt::format("{} before the ranks are connected", call));
    if (transfer.peer < 0 || transfer.peer >= transfer.comm->size)
        return group_failure = refuse(ncclInvalidArgument, fmt::format("{}: invalid peer {}", call, transfer.peer));
    if (emulator::stream_device(transfer.stream) < 0) emulator::die(fmt::format("{} into no stream", call));
    if (emulator::current_device() != transfer.comm->device)
        emulator::die(fmt::format("{} on a thread whose device is another", call));
    if (transfer.bytes > static_cast<std::size_t>(std::numeric_limits<int>::max()))
        emulator::die("the emulated NCCL moves less than 2 GiB a message");
    emulator::require_device(call, "the message", transfer.data, transfer.bytes);
    group.push_back(transfer);
    return group_depth == 0 ? end_group() : ncclSuccess;
}

// Puts the group that has ended into its stream.
void enqueue(ncclComm* comm) {
    const cudaStream_t stream = comm->begun.front().stream;
    auto exchange = std::make_shared<Exchange>(std::move(comm->begun), comm);
    comm->begun.clear();
    ++comm->under_way;
    if (emulator::enqueue_polled(stream, "NCCL group", [exchange] { return exchange->advance(); }) != cudaSuccess)
        emulator::die("an NCCL group could not be put into its stream");
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess:
            return "no error";
        case ncclInvalidArgument:
            return "invalid argument (run with NCCL_DEBUG=WARN for details)";
        case ncclInvalidUsage:
            return "invalid usage (run with NCCL_DEBUG=WARN for details)";
        case ncclInProgress:
            return "NCCL operation in progress";
        default:
            return "another error";
    }
}

const char* ncclGetLastError(ncclComm_t /*comm*/) { return last_error.c_str(); }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    static int made = 0;
    const auto guard = emulator::lock();
    *id = {};
    const int tag = 1000 + made++ % 1000;
    std::memcpy(id->internal, magic, sizeof magic);
    std::memcpy(id->internal + sizeof magic, &tag, sizeof tag);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* result, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
    const auto guard = emulator::lock();
    int world_rank = 0, world_size = 0;
    must(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank), "MPI_Comm_rank");
    must(MPI_Comm_size(MPI_COMM_WORLD, &world_size), "MPI_Comm_size");
    if (rank != world_rank || size != world_size || std::memcmp(id.internal, magic, sizeof magic) != 0)
        return refuse(ncclInvalidArgument, "ncclCommInitRankConfig: another rank, number of ranks, or id");
    if (config == nullptr || config->blocking != 0)
        emulator::die("the emulated NCCL never blocks: config.blocking = 0");
    auto comm = std::make_unique<ncclComm>();
    comm->rank = rank;
    comm->size = size;
    comm->device = emulator::current_device();
    std::memcpy(&comm->tag, id.internal + sizeof magic, sizeof comm->tag);
    for (int peer = 0; peer < size; ++peer) {
        if (peer == rank) continue;
        must(MPI_Irecv(nullptr, 0, MPI_BYTE, peer, comm->tag, MPI_COMM_WORLD, &comm->greetings.emplace_back()),
             "MPI_Irecv");
        must(MPI_Isend(nullptr, 0, MPI_BYTE, peer, comm->tag, MPI_COMM_WORLD, &comm->greetings.emplace_back()),
             "MPI_Isend");
    }
    *result = comm.release();
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
    const auto guard = emulator::lock();
    if (comm == nullptr) return refuse(ncclInvalidArgument, "ncclCommGetAsyncError: not a communicator");
    *state = ncclSuccess;
    if (!comm->greetings.empty()) {
        if (all_done(comm->greetings, MPI_STATUSES_IGNORE)) comm->greetings.clear();
        *state = ncclInProgress;  // said once more, for whoever asks once only
    } else if (!comm->begun.empty()) {
        if (comm->asked) {
            enqueue(comm);
        } else {
            comm->asked = true;
            *state = ncclInProgress;
        }
    }
    return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
    const auto guard = emulator::lock();
    ++group_depth;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    const auto guard = emulator::lock();
    if (group_depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (--group_depth > 0) return ncclSuccess;
    return end_group();
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    const auto guard = emulator::lock();
    auto* bytes = static_cast<std::byte*>(const_cast<void*>(data));
    return add({true, bytes, count, peer, comm, stream}, type, "ncclSend");
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    const auto guard = emulator::lock();
    return add({false, static_cast<std::byte*>(data), count, peer, comm, stream}, type, "ncclRecv");
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    const auto guard = emulator::lock();
    if (comm == nullptr || comm->finalized) return refuse(ncclInvalidArgument, "ncclCommFinalize: not a communicator");
    if (comm->under_way > 0 || !comm->begun.empty()) emulator::die("ncclCommFinalize while messages are on their way");
    comm->finalized = true;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    const auto guard = emulator::lock();
    if (comm == nullptr || !comm->finalized) emulator::die("ncclCommDestroy before ncclCommFinalize: it may hang");
    delete comm;
    return ncclSuccess;
}

}  // extern "C"
