#include "mpi/watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>

#include "core/error.hpp"
#include "core/host_name.hpp"
#include "mpi/native.hpp"

namespace geom {

namespace {

constexpr int sign_tag = 1;  // somebody works
constexpr int here_tag = 2;  // somebody has given up waiting, and is there

std::vector<std::string> gather_hosts(MPI_Comm comm, int size) {
    constexpr int width = 64;
    std::array<char, width> mine{};
    host_name().copy(mine.data(), width - 1);
    std::vector<char> all(static_cast<std::size_t>(size) * width);
    check_mpi(MPI_Allgather(mine.data(), width, MPI_CHAR, all.data(), width, MPI_CHAR, comm), "MPI_Allgather");
    std::vector<std::string> hosts;
    for (int r = 0; r < size; ++r) hosts.emplace_back(all.data() + static_cast<std::ptrdiff_t>(r) * width);
    return hosts;
}

}  // namespace

Watch::Watch(MPI_Comm comm) : last_sign_(Clock::now()), last_sent_(), last_listened_() {
    check_mpi(MPI_Comm_dup(comm, &comm_), "MPI_Comm_dup");
    check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    hosts_ = gather_hosts(comm_, size_);
}

// Signs on their way at the end concern nobody: the communicator goes with MPI itself.
Watch::~Watch() = default;

void Watch::set_deadline(std::chrono::duration<double> deadline) { deadline_ = deadline; }

std::chrono::duration<double> Watch::interval() const {
    return std::clamp(deadline_ / 10, std::chrono::duration<double>(0.1), std::chrono::duration<double>(10.0));
}

void Watch::made_progress() {
    if (size_ == 1 || Clock::now() - last_sent_ < interval()) return;
    last_sign_ = last_sent_ = Clock::now();
    if (rank_ == 0) {
        spread();
    } else {
        send(0, sign_tag);
    }
}

void Watch::begin_wait() { last_sign_ = std::max(last_sign_, Clock::now()); }

void Watch::send(int peer, int tag) {
    check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, peer, tag, comm_, &sending_.emplace_back(MPI_REQUEST_NULL)), "MPI_Isend");
}

void Watch::spread() {
    for (int peer = 1; peer < size_; ++peer) send(peer, sign_tag);
}

void Watch::listen() {
    const auto now = Clock::now();
    if (size_ == 1 || now - last_listened_ < std::chrono::milliseconds(20)) return;
    last_listened_ = now;
    std::erase_if(sending_, [](MPI_Request& request) {
        int done = 0;
        check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
        return done != 0;
    });
    bool heard = false;
    for (;;) {
        int there = 0;
        MPI_Status status;
        check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, sign_tag, comm_, &there, &status), "MPI_Iprobe");
        if (there == 0) break;
        check_mpi(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, sign_tag, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
        heard = true;
    }
    if (!heard) return;
    last_sign_ = now;
    if (rank_ == 0 && now - last_sent_ >= interval() / 2) {
        last_sent_ = now;
        spread();
    }
}

std::vector<int> Watch::missing_ranks() {
    std::vector<int> missing;
    for (int peer = 0; peer < size_; ++peer) {
        if (peer == rank_) continue;
        missing.push_back(peer);
        send(peer, here_tag);
    }
    // Others give up within an interval of this rank; two seconds are for the way.
    const auto until = Clock::now() + interval() + std::chrono::seconds(2);
    while (!missing.empty() && Clock::now() < until) {
        int there = 0;
        MPI_Status status;
        check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, here_tag, comm_, &there, &status), "MPI_Iprobe");
        if (there == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            continue;
        }
        check_mpi(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, here_tag, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
        std::erase(missing, status.MPI_SOURCE);
    }
    return missing;
}

void Watch::check(const char* what) {
    if (Clock::now() - last_sign_ <= deadline_) return;
    std::string names;
    for (const int peer : missing_ranks()) {
        names +=
            fmt::format("{}rank {} on {}", names.empty() ? "" : ", ", peer, hosts_[static_cast<std::size_t>(peer)]);
    }
    throw Error(ExitCode::internal,
                fmt::format("no rank has made progress for {:.0f} s (--deadline) while this one waited for {}; {}",
                            deadline_.count(), what,
                            names.empty() ? "all of them answer: they wait for each other, which is a bug"
                                          : names + " does not answer: lost, stopped, or stuck in a read"));
}

}  // namespace geom
