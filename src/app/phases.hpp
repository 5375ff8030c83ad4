// Where the time of a run goes, by phase, over all ranks.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "kernels/trace.hpp"
#include "mpi/communicator.hpp"
#include "output/run_record.hpp"

namespace geom {

class Phases {
public:
    Phases() : start_(Clock::now()) {}

    /// Everything since the start counts as phase "start".
    void started() { add("start", total()); }

    /// Runs f and adds its time to `name`; `name` is the current phase while it runs, and stays it if f throws. GPU
    /// profilers see it as a range.
    template <class F>
    auto time(const std::string& name, F&& f) {
        current_ = name;
        const TraceRange range(name.c_str());
        const Stop stop{*this, Clock::now(), name};
        return f();
    }

    const std::string& current() const noexcept { return current_; }
    double total() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

    /// Collective; the times of the named phases, zero where a rank did not go through one, and of "total".
    std::vector<PhaseTime> over_ranks(const std::vector<std::string>& names, const Communicator& communicator) const;

private:
    using Clock = std::chrono::steady_clock;
    struct Stop {
        Phases& phases;
        Clock::time_point begin;
        std::string name;
        ~Stop() { phases.add(name, std::chrono::duration<double>(Clock::now() - begin).count()); }
    };
    void add(const std::string& name, double seconds);

    Clock::time_point start_;
    std::string current_ = "start";
    std::vector<std::pair<std::string, double>> seconds_;  // in order of first use
};

}  // namespace geom
