// The control plane: small collective operations among all ranks, on the host.
// Every wait polls against a deadline, so a lost peer ends the program instead of hanging it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.hpp"

namespace geom {

class Communicator {
public:
    /// All ranks of the job. The last use of a copy must come before MPI ends.
    static Communicator world();

    int rank() const noexcept;
    int size() const noexcept;
    int node_rank() const noexcept;  ///< among the ranks that share this node's memory
    int node_size() const noexcept;

    /// How long a wait may last while no rank makes progress; the default is ten minutes. A wait beyond it throws
    /// Error(internal), which names the ranks that don't answer.
    void set_deadline(std::chrono::duration<double> deadline);
    /// To be called now and then by a rank that works for long without calling anything here: lets those that wait for
    /// it know when it has `made_progress` since the last call.
    void at_work(bool made_progress) const;
    /// Called at least every 50 ms while a wait lasts (signals, heartbeat).
    void set_idle(std::function<void()> idle);

    /// Ends the program with an error that must not unwind: while work that waits for a lost peer lies in a GPU's
    /// stream, freeing its memory would wait as well. Without one such an error is thrown like others.
    void set_emergency_exit(std::function<void(const Error&)> end);
    void emergency_exit(const Error& error) const;  ///< for mpi/; returns only where there is none

    void barrier() const;
    std::int64_t all_reduce_sum(std::int64_t value) const;
    std::int64_t all_reduce_min(std::int64_t value) const;
    std::int64_t all_reduce_max(std::int64_t value) const;
    double all_reduce_min(double value) const;
    double all_reduce_max(double value) const;
    double all_reduce_sum(double value) const;  ///< in rank order: the same bits on every rank and in every run

    /// The root's bytes, on every rank.
    std::string broadcast(std::string value, int root) const;
    /// Every rank's bytes, in rank order, on every rank.
    std::vector<std::string> all_gather(const std::string& value) const;
    /// sends[r] goes to rank r; the result holds what each rank sent here. No limit on sizes.
    std::vector<std::string> all_to_all(const std::vector<std::string>& sends) const;

    struct State;
    const std::shared_ptr<State>& state() const noexcept { return state_; }  ///< for mpi/ and output/hdf5_file.cpp

private:
    explicit Communicator(std::shared_ptr<State> state) : state_(std::move(state)) {}
    std::shared_ptr<State> state_;
};

}  // namespace geom
