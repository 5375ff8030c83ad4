// A run of a plan: one loop for all measures. It loads what the plan lists, hands each visit to its measure, moves head
// blocks and states between ranks, and decides nothing by itself.
//
//   pass 0    round by round: load | visits | agree | exchange
//             then the rising sweep, chunk by chunk or row by row, and the strips that come after it
//             share by share: agree | visits of pairs of heads
//   pass 1..  the same with the rows of other heads
#pragma once

#include <fmt/format.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "app/failure.hpp"
#include "app/fault.hpp"
#include "app/heartbeat.hpp"
#include "app/phases.hpp"
#include "app/survey.hpp"
#include "core/progress.hpp"
#include "exchange/head_store.hpp"
#include "mpi/collectives.hpp"
#include "output/recorder.hpp"
#include "plan/plan.hpp"
#include "stream/layer_requests.hpp"
#include "stream/layer_stream.hpp"
#include "stream/reader.hpp"

namespace geom {

class Schedule {
public:
    /// Everything outlives it.
    Schedule(const Survey& survey, const Plan& plan, Recorder& recorder, const Communicator& communicator,
             Phases& phases, Progress& progress);
    ~Schedule();
    Schedule(const Schedule&) = delete;
    Schedule& operator=(const Schedule&) = delete;

    /// Collective. Computes and records everything the plan lists. A failure that one rank can foresee (input,
    /// numerics, a signal) is thrown as AgreedError on all ranks; it names the rank.
    void run();

    const Reader& reader() const noexcept { return reader_; }
    std::string exchange() const { return collectives_->name(); }

private:
    void sweep(std::int64_t pass, HeadStore& blocks);
    void sweep_rising();
    void look_at_pairs(std::int64_t pass, const HeadStore& blocks);
    const LayerWeights* next_load(Failure& failure, bool there_is_one = true);
    std::string place_of(const Load& load) const;
    template <class F>
    void call(std::int64_t measure, const std::string& place, F&& f);
    void visit(const Load& load, const LayerWeights& weights);
    using States = std::vector<std::vector<std::byte>>;  // of a chunk, by measure
    double rising_flops() const;
    void rise_by_chunks(std::vector<States>& all);
    void rise_by_rows(std::vector<States>& all);
    void visit_rising(const Load& load, const LayerWeights& weights, std::int64_t chunk, States& states);
    void pass_states_on(bool has_some, std::span<States> states);
    void settle(Failure& failure);
    void settle_all();
    void sweep_strips(std::vector<States>& all);
    void look_at_strips(std::int64_t measure, std::vector<States>& all);
    void share_strips(std::int64_t measure, const std::map<std::int64_t, std::string>& mine_left);
    std::map<std::int64_t, std::string> strips_of(std::int64_t measure, std::vector<std::byte>& state,
                                                  Failure& failure);
    StoredRows read_rows(WeightFamily family, std::span<const Range> rows);
    Weight weight_of(const WeightRows& rows) const;
    RowsRead read_of(const Weight& weight, Range rows) const;
    RowsRead shared_read_of(const Weight& weight, Range rows) const;
    void record(UnitResult result);
    void share_digests(std::int64_t pass);
    void finish_measures();
    void begin_stream(const std::vector<Load>& loads, std::int64_t pass, std::int64_t slots);
    std::int64_t chunks() const;
    std::vector<std::int64_t> rising_ranks() const;
    const RankPlan& mine() const { return plan_.ranks[static_cast<std::size_t>(communicator_.rank())]; }

    const Survey& survey_;
    const Plan& plan_;
    Recorder& recorder_;
    Communicator communicator_;
    Phases& phases_;
    Progress& progress_;
    Reader reader_;
    Heartbeat heartbeat_;
    MeasureContext context_;
    std::vector<MeasureWork> works_;  // by measure of the plan
    std::map<std::pair<std::string, std::int64_t>, std::uint64_t>
        block_digests_;  // by tensor and first row, of all ranks
    std::unique_ptr<Collectives> collectives_;
    std::unique_ptr<LayerStream> stream_;
};

// What goes wrong inside a measure is said with the measure and the place.
template <class F>
void Schedule::call(std::int64_t measure, const std::string& place, F&& f) {
    const std::string& name = plan_.input.measures[static_cast<std::size_t>(measure)].name;
    phases_.time(name, [&] {
        try {
            maybe_fail(name, communicator_.rank());
            f(works_[static_cast<std::size_t>(measure)]);
        } catch (const Error& error) {
            throw Error(error.code(), fmt::format("{} ({}, {})", error.what(), name, place), error.where());
        }
    });
}

}  // namespace geom
