// The numbers of a run as they come, and the journal behind them.
#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <vector>

#include "app/survey.hpp"
#include "mpi/communicator.hpp"
#include "output/journal_queue.hpp"

namespace geom {

class Recorder {
public:
    /// Collective. Takes over what FILE.journal holds of this very run; `fresh` throws it away instead. Every unit is
    /// then held by one rank. Throws AgreedError(usage) naming the difference when the journal is of another run.
    Recorder(const Survey& survey, const Communicator& communicator, bool fresh);

    /// Collective. Opens the journal for what is to come; before the first take().
    void open();

    /// Units that the journal had, the same on all ranks.
    const std::set<Unit>& done() const noexcept { return done_; }

    void take(UnitResult result);

    /// Everything taken is in the journal when this returns.
    void flush() { queue_->flush(); }

    /// The slabs of one variable that this rank holds; they are no longer held afterwards.
    std::vector<Slab> give(std::size_t variable) { return std::move(slabs_[variable]); }

    /// The result is complete: the journal goes. Collective.
    void finish();

private:
    void read(const Communicator& communicator);
    void keep(UnitResult&& result);

    const Survey& survey_;
    Communicator communicator_;
    std::filesystem::path folder_;
    std::set<Unit> done_;
    std::vector<std::vector<Slab>> slabs_;  // by variable
    std::unique_ptr<JournalQueue> queue_;
};

}  // namespace geom
