#include "mpi/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "core/error.hpp"
#include "mpi/native.hpp"
#include "mpi/pieces.hpp"
#include "mpi/wait.hpp"
#include "mpi/watch.hpp"

namespace geom {

struct Communicator::State {
    MPI_Comm comm = MPI_COMM_NULL;
    int rank = 0, size = 1, node_rank = 0, node_size = 1;
    std::unique_ptr<Watch> watch;
    std::function<void()> idle;
    std::function<void(const Error&)> emergency_exit;
};

namespace {

using Clock = std::chrono::steady_clock;

template <class T>
T all_reduce(const Communicator& communicator, T value, MPI_Datatype type, MPI_Op op) {
    T result{};
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallreduce(&value, &result, 1, type, op, native(communicator), &request), "MPI_Iallreduce");
    wait_all(communicator, &request, 1, "a reduction among all ranks");
    return result;
}

// A send does not write its memory, though MPI's signatures of old and Message say it may.
Message message_of(const std::string& bytes, int peer) {
    return {peer, reinterpret_cast<std::byte*>(const_cast<char*>(bytes.data())),
            static_cast<std::int64_t>(bytes.size())};
}

}  // namespace

MPI_Comm native(const Communicator& communicator) { return communicator.state()->comm; }

void check_mpi(int status, const char* call) {
    if (status == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(status, text, &length);
    throw Error(ExitCode::internal,
                fmt::format("{} failed: {}", call, std::string_view(text, static_cast<std::size_t>(length))));
}

void wait_until(const Communicator& communicator, const std::function<bool()>& done, const char* what) {
    const Communicator::State& state = *communicator.state();
    const auto start = Clock::now();
    auto last_idle = start;
    state.watch->begin_wait();
    while (!done()) {
        const auto now = Clock::now();
        state.watch->listen();
        state.watch->check(what);
        if (state.idle && now - last_idle > std::chrono::milliseconds(50)) {
            last_idle = now;
            state.idle();
        }
        // Short waits are answered at once, and transports without single copies move only while they are polled; in
        // long waits the core belongs to the rank that is awaited.
        if (now - start > std::chrono::milliseconds(50)) {
            std::this_thread::sleep_for(std::chrono::microseconds(now - start > std::chrono::seconds(1) ? 500 : 50));
        } else {
            std::this_thread::yield();
        }
    }
}

void wait_all(const Communicator& communicator, MPI_Request* requests, std::size_t count, const char* what) {
    const auto all_done = [&] {
        int done = 0;
        check_mpi(MPI_Testall(static_cast<int>(count), requests, &done, MPI_STATUSES_IGNORE), "MPI_Testall");
        return done != 0;
    };
    wait_until(communicator, all_done, what);
}

Communicator Communicator::world() {
    auto state = std::make_shared<State>();
    state->comm = MPI_COMM_WORLD;
    check_mpi(MPI_Comm_rank(state->comm, &state->rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(state->comm, &state->size), "MPI_Comm_size");
    MPI_Comm node = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(state->comm, MPI_COMM_TYPE_SHARED, state->rank, MPI_INFO_NULL, &node),
              "MPI_Comm_split_type");
    check_mpi(MPI_Comm_rank(node, &state->node_rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(node, &state->node_size), "MPI_Comm_size");
    check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");
    state->watch = std::make_unique<Watch>(state->comm);
    return Communicator(std::move(state));
}

int Communicator::rank() const noexcept { return state_->rank; }
int Communicator::size() const noexcept { return state_->size; }
int Communicator::node_rank() const noexcept { return state_->node_rank; }
int Communicator::node_size() const noexcept { return state_->node_size; }
void Communicator::set_deadline(std::chrono::duration<double> deadline) { state_->watch->set_deadline(deadline); }

void Communicator::at_work(bool made_progress) const {
    state_->watch->listen();
    if (made_progress) state_->watch->made_progress();
}
void Communicator::set_idle(std::function<void()> idle) { state_->idle = std::move(idle); }

void Communicator::set_emergency_exit(std::function<void(const Error&)> end) {
    state_->emergency_exit = std::move(end);
}
void Communicator::emergency_exit(const Error& error) const {
    if (state_->emergency_exit) state_->emergency_exit(error);
}

void Communicator::barrier() const {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibarrier(state_->comm, &request), "MPI_Ibarrier");
    wait_all(*this, &request, 1, "all ranks to arrive");
}

std::int64_t Communicator::all_reduce_sum(std::int64_t value) const {
    return all_reduce(*this, value, MPI_INT64_T, MPI_SUM);
}
std::int64_t Communicator::all_reduce_min(std::int64_t value) const {
    return all_reduce(*this, value, MPI_INT64_T, MPI_MIN);
}
std::int64_t Communicator::all_reduce_max(std::int64_t value) const {
    return all_reduce(*this, value, MPI_INT64_T, MPI_MAX);
}
double Communicator::all_reduce_min(double value) const { return all_reduce(*this, value, MPI_DOUBLE, MPI_MIN); }
double Communicator::all_reduce_max(double value) const { return all_reduce(*this, value, MPI_DOUBLE, MPI_MAX); }

double Communicator::all_reduce_sum(double value) const {
    std::string bytes(reinterpret_cast<const char*>(&value), sizeof value);
    double sum = 0.0;
    for (const std::string& part : all_gather(bytes)) {
        double addend = 0.0;
        std::copy_n(part.data(), sizeof addend, reinterpret_cast<char*>(&addend));
        sum += addend;
    }
    return sum;
}

std::string Communicator::broadcast(std::string value, int root) const {
    std::vector<std::string> sends(static_cast<std::size_t>(size()));
    if (rank() == root) std::fill(sends.begin(), sends.end(), value);
    return std::move(all_to_all(sends)[static_cast<std::size_t>(root)]);
}

std::vector<std::string> Communicator::all_gather(const std::string& value) const {
    return all_to_all(std::vector<std::string>(static_cast<std::size_t>(size()), value));
}

std::vector<std::string> Communicator::all_to_all(const std::vector<std::string>& sends) const {
    const auto n = static_cast<std::size_t>(size());
    if (sends.size() != n) throw Error(ExitCode::internal, "all_to_all needs one message a rank");
    std::vector<std::int64_t> sizes(n), incoming(n);
    for (std::size_t r = 0; r < n; ++r) sizes[r] = static_cast<std::int64_t>(sends[r].size());
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ialltoall(sizes.data(), 1, MPI_INT64_T, incoming.data(), 1, MPI_INT64_T, state_->comm, &request),
              "MPI_Ialltoall");
    wait_all(*this, &request, 1, "the sizes of messages");

    std::vector<std::string> received(n);
    std::vector<MPI_Request> requests;
    for (std::size_t r = 0; r < n; ++r) {
        if (static_cast<int>(r) == rank()) {
            received[r] = sends[r];
            continue;
        }
        received[r].resize(static_cast<std::size_t>(incoming[r]));
        receive_pieces(*this, message_of(received[r], static_cast<int>(r)), requests);
    }
    for (std::size_t r = 0; r < n; ++r) {
        if (static_cast<int>(r) != rank()) send_pieces(*this, message_of(sends[r], static_cast<int>(r)), requests);
    }
    wait_all(*this, requests.data(), requests.size(), "messages from other ranks");
    return received;
}

}  // namespace geom
