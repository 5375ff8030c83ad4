// What a rank does while it waits or works for long: shows progress, tells the others that it is alive, notices
// signals.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "app/phases.hpp"
#include "core/progress.hpp"
#include "mpi/communicator.hpp"

namespace geom {

class Heartbeat {
public:
    /// `work_done` counts anything that only grows while this rank works; `journal` is for messages.
    Heartbeat(const Communicator& communicator, Progress& progress, const Phases& phases, std::string journal,
              std::function<std::int64_t()> work_done);

    /// Called often by whoever waits: never throws because of a signal, since the others have to learn of it first.
    void tick();

    /// Throws Error(stopped) when a signal has asked this rank to stop; for a place where all ranks agree.
    void stop_if_asked() const;

private:
    const Communicator& communicator_;
    Progress& progress_;
    const Phases& phases_;
    std::string journal_;
    std::function<std::int64_t()> work_done_;
    std::int64_t last_done_ = 0;
    bool signal_told_ = false;
};

}  // namespace geom
