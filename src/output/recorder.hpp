// The numbers of a run as they come, and the journal behind them.
#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "mpi/communicator.hpp"
#include "output/journal_queue.hpp"
#include "output/weights_digest.hpp"

namespace geom {

/// What a recorder has to know of a run.
struct RunToRecord {
    std::filesystem::path file;         ///< the result
    Schema schema;                      ///< what the run's measures write
    std::set<Unit> units;               ///< what they emit, all in all
    Identity identity;                  ///< the run's, whatever its measures
    std::set<std::string> copied = {};  ///< measures that the result has already: a journal's units of them are spent
};

class Recorder {
public:
    /// Collective. Takes over what FILE.journal holds of this very run; `fresh` throws it away instead. Every unit is
    /// then held by one rank. Throws AgreedError(usage) naming the difference when the journal is of another run. `run`
    /// has to outlive this.
    Recorder(const RunToRecord& run, const Communicator& communicator, bool fresh);

    /// Collective. Opens the journal for what is to come; before the first take().
    void open();

    /// Units that the journal had, the same on all ranks.
    const std::set<Unit>& done() const noexcept { return done_; }
    /// Units in the journal of measures that this run was not asked for. They stay there.
    std::int64_t left_alone() const noexcept { return left_alone_; }

    /// What was lost of the journal, in words; empty when it was whole. A record that a kill has torn counts as well.
    const std::string& damage() const noexcept { return damage_; }

    /// Throws Error(internal) for a unit that no measure of the run has declared, or that was taken before.
    void take(UnitResult result);

    /// Collective: the digest of all weights that the units, of the journal and of this run, were computed from. Throws
    /// AgreedError(input) when two units were computed from different weights.
    std::uint64_t weights_digest() const;

    /// Everything taken is in the journal when this returns.
    void flush() { queue_->flush(); }

    /// The slabs of one variable that this rank holds; they are no longer held afterwards.
    std::vector<Slab> give(std::size_t variable) { return std::move(slabs_[variable]); }

    /// The result is complete: the journal goes, unless it holds units of measures that the run was not asked for.
    /// Collective.
    void finish();

    /// The same for a journal that was only read.
    void remove() const;

private:
    void read();
    void keep(UnitResult&& result);
    void leave_alone(const Unit& unit);

    const RunToRecord& run_;
    Communicator communicator_;
    std::filesystem::path folder_;
    std::set<Unit> done_, taken_;
    std::int64_t left_alone_ = 0;
    std::string damage_;
    std::vector<std::vector<Slab>> slabs_;  // by variable
    WeightsDigest read_;                    // by the units of the journal, and by this rank's
    std::unique_ptr<JournalQueue> queue_;
};

}  // namespace geom
