// What goes wrong on one rank becomes everybody's, and the time that takes is time spent waiting.
#pragma once

#include <optional>

#include "app/phases.hpp"
#include "core/error.hpp"
#include "mpi/agreement.hpp"

namespace geom {

/// What a rank has failed with since all ranks last agreed.
class Failure {
public:
    /// Runs f, unless something before it failed, and keeps the Error it throws. Anything else passes through, and what
    /// all ranks have agreed on.
    template <class F>
    void keep(F&& f) {
        if (error_) return;
        try {
            f();
        } catch (const AgreedError&) {
            throw;
        } catch (const Error& error) {
            error_ = error;
        }
    }

    /// Collective; throws AgreedError on all ranks when any of them has failed. Timed as "wait": the slowest rank keeps
    /// all others here.
    void agree(const Communicator& communicator, Phases& phases) const {
        phases.time("wait", [&] { geom::agree(communicator, error_); });
    }

private:
    std::optional<Error> error_;
};

}  // namespace geom
