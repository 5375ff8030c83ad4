#include <algorithm>
#include <set>

#include "app/schedule.hpp"
#include "output/weights_digest.hpp"

namespace geom {

// --- the rising sweep ------------------------------------------------------------------------------------------------
//
//   where its loads stay in memory, chunk c is on the i-th rank that has rows in step c + i:
//
//   step      0    1    2    3
//   rank 0    c0   c1   c2
//   rank 1         c0   c1   c2      what c0 carries goes from rank 0 to rank 1 between steps 0 and 1
//
//   else each row sees all chunks before the next one is read, and a rank is a step.

std::int64_t Schedule::chunks() const {
    std::int64_t most = 0;
    for (const MeasureDemand& measure : plan_.input.measures) {
        if (!measure.owed.empty()) most = std::max(most, measure.needs.rising.chunks);
    }
    return most;
}

std::vector<std::int64_t> Schedule::rising_ranks() const {
    std::vector<std::int64_t> ranks;
    for (std::int64_t rank = 0; rank < std::ssize(plan_.ranks); ++rank) {
        if (!plan_.ranks[static_cast<std::size_t>(rank)].rising.empty()) ranks.push_back(rank);
    }
    return ranks;
}

void Schedule::sweep_rising() {
    if (rising_ranks().empty()) return;
    States none;  // also of measures whose weights this rank's rows lack
    for (const MeasureDemand& measure : plan_.input.measures) {
        const bool carries = !measure.owed.empty() && measure.needs.rising.chunks > 0;
        none.emplace_back(static_cast<std::size_t>(carries ? measure.needs.rising.state_bytes : 0));
    }
    std::vector<States> all(static_cast<std::size_t>(chunks()));
    progress_.begin("forward", "layers", rising_flops(), "FLOP");
    if (!stream_ && !mine().rising.empty()) begin_stream(mine().rising, 0, mine().slots);
    if (plan_.resident) {
        all.front() = none;
        rise_by_chunks(all);
    } else {
        all.assign(all.size(), none);
        rise_by_rows(all);
    }
    stream_.reset();
    settle_all();
    sweep_strips(all);
    progress_.end();
}

double Schedule::rising_flops() const {
    double flops = 0.0;
    for (std::size_t m = 0; m < works_.size(); ++m) {
        const Work& work = mine().work[m];
        if (plan_.input.measures[m].needs.rising.chunks > 0) flops += static_cast<double>(work.products + work.fp64);
    }
    return flops;
}

// One chunk's states are on their way; the last rank keeps those of every chunk for the strips.
void Schedule::rise_by_chunks(std::vector<States>& all) {
    const std::vector<std::int64_t> stages = rising_ranks();
    const std::vector<Load>& loads = mine().rising;
    const auto stage = std::find(stages.begin(), stages.end(), std::int64_t{communicator_.rank()}) - stages.begin();
    const bool last = stage + 1 == std::ssize(stages);
    const std::vector<LayerRequest> requests = requests_of(plan_, loads, 0);
    States states = std::move(all.front());
    for (std::int64_t step = 0; step < chunks() + std::ssize(stages) - 1; ++step) {
        const std::int64_t chunk = step - stage;
        const bool has_one = !loads.empty() && chunk >= 0 && chunk < chunks();
        Failure failure;
        if (has_one) {
            if (chunk > 0) failure.keep([&] { stream_->restart(requests); });
            for (const Load& load : loads) {
                const LayerWeights* weights = next_load(failure);
                if (weights != nullptr) failure.keep([&] { visit_rising(load, *weights, chunk, states); });
            }
        }
        failure.agree(communicator_, phases_);
        if (has_one && last) all[static_cast<std::size_t>(chunk)] = states;
        pass_states_on(has_one, {&states, 1});
    }
}

void Schedule::rise_by_rows(std::vector<States>& all) {
    for (const std::int64_t stage : rising_ranks()) {
        const bool mine_now = stage == communicator_.rank();
        Failure failure;
        for (std::size_t i = 0; mine_now && i < mine().rising.size(); ++i) {
            const LayerWeights* weights = next_load(failure);
            for (std::size_t chunk = 0; weights != nullptr && chunk < all.size(); ++chunk) {
                failure.keep(
                    [&] { visit_rising(mine().rising[i], *weights, static_cast<std::int64_t>(chunk), all[chunk]); });
            }
            settle(failure);
        }
        failure.agree(communicator_, phases_);
        pass_states_on(mine_now, all);
    }
}

void Schedule::visit_rising(const Load& load, const LayerWeights& weights, std::int64_t chunk, States& states) {
    for (const Visit& visit : load.visits) {
        const auto m = static_cast<std::size_t>(visit.measure);
        const Rising& rising = plan_.input.measures[m].needs.rising;
        if (chunk >= rising.chunks) continue;
        LayerVisit seen{load.of, load.row, load.index, load.rows, weights};
        seen.units = visit.units;
        seen.chunk = chunk;
        seen.state = states[m];
        seen.complete = chunk == rising.chunks - 1;
        call(visit.measure, place_of(load), [&](const MeasureWork& work) { work.layer(seen); });
    }
    progress_.advance(rising_flops() / static_cast<double>(chunks() * std::ssize(mine().rising)));
}

// To the next rank with rows goes what chunks carry that have been through all rows here. States are host memory.
void Schedule::pass_states_on(bool has_some, std::span<States> states) {
    const std::vector<std::int64_t> stages = rising_ranks();
    const auto stage = std::find(stages.begin(), stages.end(), std::int64_t{communicator_.rank()}) - stages.begin();
    std::vector<std::string> sends(static_cast<std::size_t>(communicator_.size()));
    if (has_some && stage + 1 < std::ssize(stages)) {
        std::string& message = sends[static_cast<std::size_t>(stages[static_cast<std::size_t>(stage + 1)])];
        for (const States& chunk : states) {
            for (const auto& state : chunk) message.append(reinterpret_cast<const char*>(state.data()), state.size());
        }
    }
    phases_.time("exchange", [&] {
        for (const std::string& message : communicator_.all_to_all(sends)) {
            const auto* from = reinterpret_cast<const std::byte*>(message.data());
            for (std::size_t c = 0; c < states.size() && !message.empty(); ++c) {
                for (auto& state : states[c]) {
                    std::copy_n(from, state.size(), state.begin());
                    from += state.size();
                }
            }
        }
    });
}

void Schedule::settle(Failure& failure) {
    for (std::size_t m = 0; m < works_.size(); ++m) {
        for (bool more = static_cast<bool>(works_[m].settle); more;) {
            more = false;
            failure.keep([&] {
                heartbeat_.stop_if_asked();
                call(static_cast<std::int64_t>(m), "after its last chunk",
                     [&](const MeasureWork& work) { more = work.settle(); });
            });
        }
    }
}

void Schedule::settle_all() {
    Failure failure;
    settle(failure);
    failure.agree(communicator_, phases_);
}

// --- strips: what all chunks left, held against a global by all ranks together ---------------------------------------

void Schedule::sweep_strips(std::vector<States>& all) {
    std::set<std::int64_t> measures;
    for (const RankPlan& rank : plan_.ranks) {
        for (const Load& load : rank.after) measures.insert(load.visits.front().measure);
    }
    for (const std::int64_t measure : measures) look_at_strips(measure, all);
}

void Schedule::look_at_strips(std::int64_t measure, std::vector<States>& all) {
    const auto m = static_cast<std::size_t>(measure);
    const std::int64_t last = rising_ranks().back(), chunks = plan_.input.measures[m].needs.rising.chunks;
    std::string joined;
    for (std::int64_t chunk = 0; last == communicator_.rank() && chunk < chunks; ++chunk) {
        const std::vector<std::byte>& state = all[static_cast<std::size_t>(chunk)][m];
        joined.append(reinterpret_cast<const char*>(state.data()), state.size());
    }
    phases_.time("exchange", [&] { joined = communicator_.broadcast(std::move(joined), static_cast<int>(last)); });
    const auto* bytes = reinterpret_cast<const std::byte*>(joined.data());
    std::vector<std::byte> state(bytes, bytes + joined.size());
    joined = {};
    Failure failure;
    const std::map<std::int64_t, std::string> mine_left = strips_of(measure, state, failure);
    failure.agree(communicator_, phases_);
    share_strips(measure, mine_left);
}

// By first row, what this rank's strips leave.
std::map<std::int64_t, std::string> Schedule::strips_of(std::int64_t measure, std::vector<std::byte>& state,
                                                        Failure& failure) {
    std::map<std::int64_t, std::string> left;
    std::vector<Load> loads = mine().after;
    std::erase_if(loads, [&](const Load& load) { return load.visits.front().measure != measure; });
    if (loads.empty()) return left;
    failure.keep([&] { begin_stream(loads, 0, 2); });
    const Rising& rising = plan_.input.measures[static_cast<std::size_t>(measure)].needs.rising;
    for (const Load& load : loads) {
        const LayerWeights* weights = next_load(failure);
        if (weights == nullptr) break;
        std::vector<std::byte> of_strip(static_cast<std::size_t>(rising.strip_bytes));
        LayerVisit seen{load.of, load.row, load.index, load.rows, *weights};
        seen.state = state;
        seen.left = of_strip;
        failure.keep([&] { call(measure, place_of(load), [&](const MeasureWork& work) { work.layer(seen); }); });
        left[load.rows.begin].assign(reinterpret_cast<const char*>(of_strip.data()), of_strip.size());
    }
    stream_.reset();
    return left;
}

// Every rank gets what all strips left, and the digests of their rows; the one with the first strip emits.
void Schedule::share_strips(std::int64_t measure, const std::map<std::int64_t, std::string>& mine_left) {
    const Rising& rising = plan_.input.measures[static_cast<std::size_t>(measure)].needs.rising;
    const WeightShape& global = survey_.shape.globals[static_cast<std::size_t>(rising.after)];
    const Weight weight = survey_.checkpoint.weight(global.family, -1);
    std::vector<RowsRead> read;
    std::string bytes;
    std::vector<Unit> units;
    for (const Load& load : mine().after) {
        if (load.visits.front().measure != measure) continue;
        if (load.rows.begin == 0) units = load.visits.front().units;
        read.push_back(read_of(weight, load.rows));
        bytes += mine_left.at(load.rows.begin);
    }
    std::map<std::int64_t, std::string> left;
    RowsRead whole{weight.tensor, weight.first_row, weight.first_row + weight.rows};
    phases_.time("exchange", [&] {
        const auto rows = communicator_.all_gather(bytes_of(read)), strips = communicator_.all_gather(bytes);
        for (std::size_t rank = 0; rank < rows.size(); ++rank) {
            std::size_t at = 0;
            for (const RowsRead& one : rows_of(rows[rank])) {
                left[one.begin] = strips[rank].substr(at, static_cast<std::size_t>(rising.strip_bytes));
                at += static_cast<std::size_t>(rising.strip_bytes);
                whole.digest += one.digest;
            }
        }
    });
    block_digests_[{whole.tensor, whole.begin}] = whole.digest;
    std::string joined;
    for (const auto& [row, strip] : left) joined += strip;
    Failure failure;
    failure.keep([&] {
        call(measure, std::string(name_of(global.family)), [&](const MeasureWork& work) {
            work.strips({std::as_bytes(std::span(joined)), units});
        });
    });
    failure.agree(communicator_, phases_);
}

}  // namespace geom
