#include "app/heartbeat.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "app/stop_signals.hpp"
#include "core/error.hpp"
#include "core/host_name.hpp"

namespace geom {

Heartbeat::Heartbeat(const Communicator& communicator, Progress& progress, const Phases& phases, std::string journal,
                     std::function<std::int64_t()> work_done)
    : communicator_(communicator),
      progress_(progress),
      phases_(phases),
      journal_(std::move(journal)),
      work_done_(std::move(work_done)) {}

void Heartbeat::tick() {
    const std::int64_t done = work_done_();
    communicator_.at_work(done != last_done_);
    last_done_ = done;
    progress_.tick(phases_.current());
    // The first two speak: when rank 0 is the one that was lost, rank 1 still says where the others were.
    if (stop_signal() != 0 && !signal_told_ && communicator_.rank() < 2) {
        signal_told_ = true;
        fmt::print(stderr,
                   "geom-mpi: rank {} on {}, {}: {}: stopping as soon as all ranks agree; what is done is in {}\n",
                   communicator_.rank(), host_name(), phases_.current(), signal_name(stop_signal()), journal_);
        std::fflush(stderr);
    }
}

void Heartbeat::stop_if_asked() const {
    if (stop_signal() != 0) {
        throw Error(ExitCode::stopped, fmt::format("stopped by {}; the same command goes on from the journal {}",
                                                   signal_name(stop_signal()), journal_));
    }
}

}  // namespace geom
