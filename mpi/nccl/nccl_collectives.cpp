// Collectives over NCCL: every message is an ncclSend and an ncclRecv, all of an exchange in one group, in the queue's
// own stream. ncclAlltoAll is not for us: our messages differ in size and number by pair of ranks. Nothing is summed on
// the way, so that whatever path NCCL takes (NCCL_NVLS_ENABLE and others) leaves the same bits.
//
// No call blocks: a communicator with blocking = 0 says ncclInProgress, a stream cudaErrorNotReady, and both are polled
// under wait_until(), since NCCL does not report a dead peer on the same host (NVIDIA/nccl#279).
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>

#include "mpi/collectives.hpp"
#include "mpi/nccl/check.hpp"
#include "mpi/own_copies.hpp"
#include "mpi/wait.hpp"

namespace geom {

namespace {

struct DestroyEvent {
    void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

Event make_event() {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    return Event(event);
}

// Rank 0's, on every rank.
ncclUniqueId common_id(const Communicator& communicator) {
    ncclUniqueId id{};
    if (communicator.rank() == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    const std::string bytes = communicator.broadcast(std::string(id.internal, sizeof id.internal), 0);
    std::memcpy(id.internal, bytes.data(), sizeof id.internal);
    return id;
}

class NcclCollectives final : public Collectives {
public:
    NcclCollectives(const Communicator& communicator, Queue& queue, int device)
        : communicator_(communicator), queue_(queue), device_(device), exceptions_(std::uncaught_exceptions()) {
        use_device();
        moved_ = make_event();
        connect();
    }
    // Only a communicator on which nothing is under way is given back, and only where all ranks come by here. Else it
    // is left to the end of the process, which is near: ncclCommAbort on one rank would hang the others.
    ~NcclCollectives() override {
        if (at_rest_ && std::uncaught_exceptions() == exceptions_) give_back();
    }
    NcclCollectives(const NcclCollectives&) = delete;
    NcclCollectives& operator=(const NcclCollectives&) = delete;

    std::string name() const override { return "nccl"; }

    void exchange(std::span<const Message> sends, std::span<const Message> receives) override {
        const auto own = own_copies(communicator_.rank(), sends, receives);
        use_device();
        unless_it_fails([&] {
            for (const OwnCopy& copy : own) queue_.copy(copy.to, copy.from, copy.bytes);
            issue(sends, receives);
            // The first messages of a pair connect it, in the background; until then the stream must be left alone.
            wait_settled("NCCL to connect to other ranks");
            check_cuda(cudaEventRecord(moved_.get(), stream()), "cudaEventRecord");
            const auto arrived = [this] { return settled() && moved(); };
            wait_until(communicator_, arrived, "weights from other ranks");
        });
    }

private:
    void use_device() const { check_cuda(cudaSetDevice(device_), "cudaSetDevice"); }
    cudaStream_t stream() const { return static_cast<cudaStream_t>(queue_.native()); }

    // What fails in the midst of communication leaves behind what may never end, and holds up whoever frees memory of
    // the GPU: an error that must not unwind.
    template <class Communicate>
    void unless_it_fails(Communicate&& communicate) {
        at_rest_ = false;
        try {
            communicate();
        } catch (const Error& error) {
            communicator_.emergency_exit(error);
            throw;
        }
        at_rest_ = true;
    }

    void connect() {
        const ncclUniqueId id = common_id(communicator_);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        unless_it_fails([&] {
            check_nccl(ncclCommInitRankConfig(&comm_, communicator_.size(), id, communicator_.rank(), &config),
                       "ncclCommInitRankConfig");
            wait_settled("NCCL to connect all ranks");
        });
    }

    // Empty messages are no messages, on both sides. A group that was begun is ended whatever happens in it.
    void issue(std::span<const Message> sends, std::span<const Message> receives) {
        const auto each = [this](std::span<const Message> messages, const auto& call) {
            for (const Message& message : messages) {
                if (message.peer != communicator_.rank() && message.bytes > 0)
                    call(message, static_cast<std::size_t>(message.bytes));
            }
        };
        check_nccl(ncclGroupStart(), "ncclGroupStart");
        std::exception_ptr failure;
        try {
            each(receives, [this](const Message& from, std::size_t bytes) {
                check_nccl(ncclRecv(from.data, bytes, ncclInt8, from.peer, comm_, stream()), "ncclRecv");
            });
            each(sends, [this](const Message& to, std::size_t bytes) {
                check_nccl(ncclSend(to.data, bytes, ncclInt8, to.peer, comm_, stream()), "ncclSend");
            });
        } catch (...) {
            failure = std::current_exception();
        }
        const ncclResult_t ended = ncclGroupEnd();
        if (failure) std::rethrow_exception(failure);
        check_nccl(ended, "ncclGroupEnd");
    }

    // Whether NCCL has nothing left to do on the host.
    bool settled() const {
        ncclResult_t state = ncclSuccess;
        check_nccl(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
        check_nccl(state, "communication over NCCL");
        return state != ncclInProgress;
    }

    void wait_settled(const char* what) const {
        wait_until(
            communicator_, [this] { return settled(); }, what);
    }

    bool moved() const {
        const cudaError_t status = cudaEventQuery(moved_.get());
        if (status == cudaErrorNotReady) {
            cudaGetLastError();  // an answer, and no error that whoever launches next should find
            return false;
        }
        check_cuda(status, "cudaEventQuery");
        return true;
    }

    // No failure matters any more; a peer that does not come by is waited for in vain for a while.
    void give_back() noexcept {
        cudaSetDevice(device_);
        ncclResult_t state = ncclCommFinalize(comm_);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while (state == ncclInProgress && std::chrono::steady_clock::now() < until) {
            std::this_thread::sleep_for(std::chrono::microseconds(100));
            if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) return;
        }
        if (state == ncclSuccess) ncclCommDestroy(comm_);
    }

    Communicator communicator_;
    Queue& queue_;
    int device_;
    int exceptions_;
    Event moved_;  // recorded behind the last exchange
    ncclComm_t comm_ = nullptr;
    bool at_rest_ = false;
};

}  // namespace

bool have_nccl() noexcept { return true; }

std::string nccl_version() {
    int code = 0;
    check_nccl(ncclGetVersion(&code), "ncclGetVersion");
    return fmt::format("NCCL {}.{}.{}", code / 10'000, code / 100 % 100, code % 100);
}

std::unique_ptr<Collectives> make_nccl_collectives(const Communicator& communicator, Queue& queue, int device) {
    return std::make_unique<NcclCollectives>(communicator, queue, device);
}

}  // namespace geom
