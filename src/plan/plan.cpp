#include "plan/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "core/error.hpp"
#include "plan/loads.hpp"

namespace geom {

namespace {

// Of one layer.
std::int64_t bytes_held(const PlanInput& input, const std::vector<GroupShare>& held) {
    std::int64_t bytes = 0;
    for (const GroupShare& share_of_group : held)
        bytes += (1 + std::ssize(share_of_group.heads)) * input.bytes_of(share_of_group.form);
    return bytes;
}

// --- pairs of heads ------------------------------------------------------------------------------------------------

// What measures owe of heads: by block of groups in a form, then by left head, then by measure.
class PairDemand {
public:
    explicit PairDemand(const PlanInput& input) : input_(input) {
        const std::int64_t size = input.shape.group_size();
        for (std::size_t m = 0; m < input.measures.size(); ++m) {
            for (const Unit& unit : input.measures[m].owed) {
                if (unit.of != UnitOf::head && unit.of != UnitOf::pair) continue;
                const std::int64_t group = unit.first / size, other = unit.of == UnitOf::head ? group : unit.second;
                const BlockForm form = input.measures[m].needs.form;
                if (unit.of == UnitOf::pair) all_pairs_.insert(form);
                owed_[{group, other, form}][unit.first].push_back({static_cast<std::int64_t>(m), {unit}});
            }
        }
    }

    std::vector<PairBlock> blocks() const {
        std::vector<PairBlock> blocks;
        for (const auto& [place, heads] : owed_) {
            blocks.push_back({place.left, place.right, {}, place.form});
            for (const auto& [head, visits] : heads) blocks.back().heads.push_back(head);
        }
        return blocks;
    }

    PairPass pass_of(const std::vector<PairBlock>& blocks) const {
        PairPass pass;
        for (const BlockForm form : {BlockForm::stored, BlockForm::folded}) {
            std::vector<PairBlock> of_form;
            std::copy_if(blocks.begin(), blocks.end(), std::back_inserter(of_form),
                         [form](const PairBlock& block) { return block.form == form; });
            for (GroupShare& held : held_for(of_form, input_.shape.group_size(), all_pairs_.contains(form)))
                pass.held.push_back(std::move(held));
        }
        const auto place = [&](std::int64_t group, BlockForm form) {
            return std::find_if(pass.held.begin(), pass.held.end(),
                                [&](const GroupShare& held) { return held.group == group && held.form == form; }) -
                   pass.held.begin();
        };
        for (const PairBlock& block : blocks) {
            const std::int64_t left = place(block.left, block.form), right = place(block.right, block.form);
            for (const PairBlock& run : runs_in(pass.held[static_cast<std::size_t>(left)], block))
                pass.visits.push_back({left, right, run.heads, visits_of(run)});
        }
        return pass;
    }

private:
    // The block, or where other blocks hold heads between its own, what lies one after the other in memory.
    static std::vector<PairBlock> runs_in(const GroupShare& held, const PairBlock& block) {
        std::vector<PairBlock> runs;
        auto at = held.heads.begin();
        for (const std::int64_t head : block.heads) {
            const auto found = std::find(at, held.heads.end(), head);
            if (runs.empty() || found != at) runs.push_back({block.left, block.right, {}, block.form});
            runs.back().heads.push_back(head);
            at = found + 1;
        }
        return runs;
    }

    std::vector<Visit> visits_of(const PairBlock& block) const {
        std::map<std::int64_t, Visit> by_measure;
        for (const std::int64_t head : block.heads) {
            for (const Visit& visit : owed_.at({block.left, block.right, block.form}).at(head)) {
                Visit& of_measure = by_measure[visit.measure];
                of_measure.measure = visit.measure;
                of_measure.units.insert(of_measure.units.end(), visit.units.begin(), visit.units.end());
            }
        }
        std::vector<Visit> visits;
        for (auto& [measure, visit] : by_measure) visits.push_back(std::move(visit));
        return visits;
    }

    struct Place {
        std::int64_t left, right;  // groups
        BlockForm form;            // forms of a group side by side: ranks get both, as one costs more
        auto operator<=>(const Place&) const = default;
    };

    const PlanInput& input_;
    std::set<BlockForm> all_pairs_;  // forms in which some measure holds heads against others
    std::map<Place, std::map<std::int64_t, std::vector<Visit>>> owed_;
};

// --- memory --------------------------------------------------------------------------------------------------------

// Query heads and groups whose rows a pass reads.
struct PassHeads {
    std::vector<std::int64_t> heads, groups;
};

struct Reading {
    std::int64_t bytes = 0;
    std::int64_t largest = 0;  // load, in memory
};

Reading reading_of(const ModelShape& shape, const std::vector<Load>& loads, const PassHeads& pass) {
    Reading reading;
    for (const Load& load : loads) {
        const LoadBytes bytes = bytes_of(shape, load, pass.heads, pass.groups);
        reading.bytes += bytes.stored;
        reading.largest = std::max(reading.largest, bytes.memory);
    }
    return reading;
}

// Everything about one number of passes that the ranks' memory follows from.
class PassPlanner {
public:
    explicit PassPlanner(Plan& plan) : plan_(plan) {
        for (std::int64_t pass = 0; pass < plan.passes; ++pass) {
            heads_.push_back({plan.heads_in_pass(pass), plan.groups_in_pass(pass)});
            std::vector<std::int64_t> bytes;
            for (const RankPlan& rank : plan.ranks)
                bytes.push_back(bytes_held(plan.input, rank.passes[static_cast<std::size_t>(pass)].held));
            held_.push_back(std::move(bytes));
        }
        for (const MeasureDemand& measure : plan.input.measures) {
            if (measure.owed.empty()) continue;
            need_.layer = std::max(need_.layer, measure.memory.layer);
            need_.layer_host = std::max(need_.layer_host, measure.memory.layer_host);
            need_.pair = std::max(need_.pair, measure.memory.pair);
            need_.pair_host = std::max(need_.pair_host, measure.memory.pair_host);
            need_.kept += measure.memory.kept;
            need_.kept_host += measure.memory.kept_host;
            need_.row += measure.memory.row;
            need_.row_host += measure.memory.row_host;
            need_.after = std::max(need_.after, measure.memory.after);
            need_.after_host = std::max(need_.after_host, measure.memory.after_host);
            if (measure.needs.rising.chunks > 0) count_states(measure);
        }
    }

    void fill(std::int64_t rank) {
        RankPlan& mine = plan_.ranks[static_cast<std::size_t>(rank)];
        mine.slots = slots_of(mine);
        for (std::int64_t pass = 0; pass < plan_.passes; ++pass) {
            const auto& loads = pass == 0 ? mine.loads : mine.later_loads;
            Reading reading = reading_of(plan_.input.shape, loads, heads_[static_cast<std::size_t>(pass)]);
            mine.bytes_read += reading.bytes;
            if (pass == 0) add_rising(mine, reading);
            take_worst(mine, pass, rank, (pass == 0 ? mine.slots : 2) * reading.largest);
        }
    }

private:
    // What is on its way, and its copy: of a chunk, or of all where rows come one by one or strips follow.
    void count_states(const MeasureDemand& measure) {
        const Rising& rising = measure.needs.rising;
        const bool strips = std::any_of(plan_.ranks.begin(), plan_.ranks.end(),
                                        [](const RankPlan& rank) { return !rank.after.empty(); });
        states_ += 2 * rising.state_bytes * (plan_.resident && !strips ? 1 : rising.chunks);
        std::int64_t count = 0;
        for (const RankPlan& rank : plan_.ranks) count += std::ssize(rank.after);
        states_ += 2 * rising.strip_bytes * count;
    }

    void add_rising(RankPlan& mine, Reading& reading) const {
        std::vector<Load> read = mine.after;
        for (const Load& load : mine.rising) {
            if (!load.shared) read.push_back(load);
        }
        const Reading rising = reading_of(plan_.input.shape, read, heads_.front());
        mine.bytes_read += rising.bytes;
        reading.largest = std::max(reading.largest, rising.largest);
    }

    std::int64_t slots_of(const RankPlan& mine) const {
        const bool pairs =
            std::any_of(mine.loads.begin(), mine.loads.end(), [](const Load& load) { return load.after_previous; });
        const std::int64_t least = pairs ? 3 : 2;
        if (!plan_.resident) return least;
        const std::int64_t others = mine.loads.empty() ? 0 : least;  // that come between the two sweeps
        return std::max(least, std::int64_t{std::ssize(mine.rising)} + others);
    }

    // Of the blocks of a round that `rank` sends to others, or gets from them.
    std::int64_t moving_bytes(std::int64_t pass, std::int64_t rank, bool sent) const {
        const std::vector<std::int64_t>& held = held_[static_cast<std::size_t>(pass)];
        std::int64_t bytes = 0;
        for (std::size_t peer = 0; peer < held.size(); ++peer) {
            const std::size_t from = sent ? static_cast<std::size_t>(rank) : peer;
            if (static_cast<std::int64_t>(peer) == rank || plan_.ranks[from].later_loads.empty()) continue;
            bytes += held[sent ? peer : static_cast<std::size_t>(rank)];
        }
        return bytes;
    }

    struct Numbers {
        std::int64_t held = 0;  // all that a rank has at the end
        std::int64_t sent = 0;  // of one variable
        std::int64_t unit = 0;  // of the largest unit
    };

    // Of a unit that is being computed and of one that is being written down: in the measure's hands, waiting for the
    // journal, held by it, as its record and framed.
    static constexpr std::int64_t copies_of_unit = 5;

    // A rank has what it computes and its share of what a journal gave back.
    Numbers numbers_of(const RankPlan& mine) const {
        Numbers numbers;
        for (std::size_t m = 0; m < plan_.input.measures.size(); ++m) {
            const MeasureDemand& measure = plan_.input.measures[m];
            if (measure.units == 0) continue;
            const std::int64_t done = measure.units - std::ssize(measure.owed);
            const double share = (static_cast<double>(mine.units[m]) +
                                  static_cast<double>(done) / static_cast<double>(plan_.input.ranks)) /
                                 static_cast<double>(measure.units);
            const auto of = [share](std::int64_t bytes) {
                return static_cast<std::int64_t>(share * static_cast<double>(bytes));
            };
            numbers.held += of(measure.result_bytes);
            if (mine.units[m] > 0) numbers.unit = std::max(numbers.unit, measure.result_bytes / measure.units);
            numbers.sent = std::max(numbers.sent, of(measure.largest_variable));
        }
        return numbers;
    }

    void take_worst(RankPlan& mine, std::int64_t pass, std::int64_t rank, std::int64_t in_flight) const {
        const PlanInput& in = plan_.input;
        MemoryPlan host, device;
        MemoryPlan& computing = in.device ? device : host;  // where verbs read and write
        host.process = in.process_bytes;
        host.stream = in_flight;
        const Numbers numbers = numbers_of(mine);
        const std::int64_t rows =
            plan_.resident ? std::ssize(mine.rising) : std::min<std::int64_t>(1, std::ssize(mine.rising));
        host.results = numbers.held + copies_of_unit * numbers.unit + need_.kept_host + states_ + rows * need_.row_host;
        // They are written a variable at a time: what this rank has of it, on its way, and what it writes.
        host.transit = std::max(numbers.sent, in.largest_variable / in.ranks) + in.largest_variable / in.ranks;
        if (in.device) device.process = in.device_process_bytes;
        computing.stream = in_flight;
        computing.scratch = std::max(need_.layer + rows * need_.row, need_.after) + need_.kept;
        host.scratch += std::max(need_.layer_host, need_.after_host);
        if (plan_.head_blocks) {
            const std::int64_t sent = moving_bytes(pass, rank, true);
            computing.blocks = held_[static_cast<std::size_t>(pass)][static_cast<std::size_t>(rank)] *
                               std::ssize(plan_.attention_rows);
            computing.staging = sent;
            if (in.device && in.exchange_on_host) host.staging = sent + moving_bytes(pass, rank, false);
            computing.products = need_.kept + need_.pair;
            host.products += need_.pair_host;
        }
        if (host.total() > mine.memory.total()) mine.memory = host;
        if (device.total() > mine.device.total()) mine.device = device;
    }

    Plan& plan_;
    std::vector<PassHeads> heads_;                 // by pass
    std::vector<std::vector<std::int64_t>> held_;  // bytes of head blocks of a layer, by pass and rank
    MemoryNeed need_;                              // of all measures that owe something
    std::int64_t states_ = 0;                      // of rising sweeps, on their way
};

void count_work(const PlanInput& input, RankPlan& rank) {
    rank.units.assign(input.measures.size(), 0);
    rank.work.assign(input.measures.size(), {});
    const auto count_units = [&](const std::vector<Visit>& visits) {
        for (const Visit& visit : visits)
            rank.units[static_cast<std::size_t>(visit.measure)] += std::ssize(visit.units);
    };
    const auto count = [&](const std::vector<Visit>& visits) {
        count_units(visits);
        for (const Visit& visit : visits) {
            const auto m = static_cast<std::size_t>(visit.measure);
            if (input.measures[m].work) rank.work[m] += input.measures[m].work(input.shape, visit.units);
        }
    };
    for (const Load& load : rank.loads) {  // a global's strips are one unit
        if (load.of != UnitOf::global || load.rows.begin == 0) count(load.visits);
    }
    for (const Load& load : rank.rising) count(load.visits);
    for (const Load& load : rank.after) count_units(load.visits);
    for (const PairPass& pass : rank.passes) {
        for (const PairVisit& visit : pass.visits) count(visit.visits);
    }
}

// A unit that is computed from strips is each rank's work as far as its strips go.
void count_shared_work(const PlanInput& input, std::vector<RankPlan>& ranks) {
    for (const RankPlan& first : ranks) {
        for (const Load& load : first.after) {
            for (const Visit& visit : load.visits) {
                const auto m = static_cast<std::size_t>(visit.measure);
                if (visit.units.empty() || !input.measures[m].work) continue;
                const Work all = input.measures[m].work(input.shape, visit.units);
                const std::int64_t rows = input.shape.globals[static_cast<std::size_t>(load.index)].rows;
                for (RankPlan& rank : ranks) {
                    for (const Load& strip : rank.after) {
                        if (strip.index != load.index || strip.visits.front().measure != visit.measure) continue;
                        rank.work[m] += {all.products / rows * strip.rows.size(), all.fp64 / rows * strip.rows.size()};
                    }
                }
            }
        }
    }
}

// Loads and blocks of every rank, whatever the number of passes.
struct Assignment {
    Plan plan;  // without passes
    PairDemand pairs;
    std::vector<std::vector<PairBlock>> blocks;  // by rank
};

Plan plan_with(const Assignment& assignment, std::int64_t passes, bool resident) {
    Plan plan = assignment.plan;
    plan.passes = passes;
    plan.resident = resident;
    for (RankPlan& rank : plan.ranks) {
        if (resident) share_loads(rank.loads, rank.rising);
    }
    for (std::size_t r = 0; r < plan.ranks.size(); ++r) {
        for (const auto& blocks : cut_into_passes(assignment.blocks[r], passes))
            plan.ranks[r].passes.push_back(assignment.pairs.pass_of(blocks));
        count_work(plan.input, plan.ranks[r]);
    }
    count_shared_work(plan.input, plan.ranks);
    PassPlanner planner(plan);
    for (std::int64_t r = 0; r < plan.input.ranks; ++r) planner.fill(r);
    return plan;
}

Assignment assign(const PlanInput& input) {
    const Demand demand = demand_of(input.shape, input.measures);
    Assignment assignment{{}, PairDemand(input), {}};
    assignment.plan.input = input;
    assignment.plan.head_blocks = demand.heads;
    if (demand.heads) assignment.plan.attention_rows = input.shape.attention_rows();
    for (RankLoads& loads : loads_of(input.shape, input.measures, demand, input.ranks)) {
        RankPlan rank;
        rank.loads = std::move(loads.loads);
        rank.rising = std::move(loads.rising);
        rank.after = std::move(loads.after);
        for (const Load& load : rank.loads) {
            if (!load.heads) continue;
            Load later;
            later.row = load.row;
            later.heads = true;
            if (demand.folded && input.shape.at(load.row).has(WeightFamily::input_ln))
                later.whole = {WeightFamily::input_ln};
            rank.later_loads.push_back(std::move(later));
        }
        assignment.plan.ranks.push_back(std::move(rank));
    }
    assignment.blocks = assign_blocks(assignment.pairs.blocks(), input.ranks);
    return assignment;
}

[[noreturn]] void too_small(const Plan& plan) {
    const PlanInput& input = plan.input;
    // Of two budgets that are too small the one that lacks more is named: what it names is then enough for both.
    const bool device =
        plan.peak_device_bytes() - input.device_budget > std::max<std::int64_t>(0, plan.peak_bytes() - input.budget);
    const auto worst =
        std::max_element(plan.ranks.begin(), plan.ranks.end(), [device](const RankPlan& a, const RankPlan& b) {
            return device ? a.device.total() < b.device.total() : a.memory.total() < b.memory.total();
        });
    const MemoryPlan& memory = device ? worst->device : worst->memory;
    throw Error(
        ExitCode::usage,
        fmt::format("--memory-budget {} bytes a rank{} is too small: even with one head of a rank at a time, {} "
                    "bytes are needed (process {}, layers in flight {}, head blocks {}, scratch and results "
                    "{}); give at least that, or use more ranks",
                    device ? input.device_budget : input.budget, device ? " of GPU memory" : "", memory.total(),
                    memory.process, memory.stream, memory.blocks + memory.staging,
                    std::max(memory.scratch, memory.products) + memory.results + memory.transit));
}

// Numbers of passes that are tried: one more each time, then a sixteenth more, so that thousands are planned in a
// second.
std::int64_t more_passes(std::int64_t passes, std::int64_t most) {
    return std::min(most, passes + std::max<std::int64_t>(1, passes / 16));
}

template <class F>
double largest_over_mean(const std::vector<RankPlan>& ranks, F&& value) {
    double largest = 0.0, sum = 0.0;
    for (const RankPlan& rank : ranks) {
        largest = std::max(largest, static_cast<double>(value(rank)));
        sum += static_cast<double>(value(rank));
    }
    return sum > 0.0 ? largest * static_cast<double>(ranks.size()) / sum : 1.0;
}

}  // namespace

Plan make_plan(const PlanInput& input) {
    const Assignment assignment = assign(input);
    std::int64_t most_passes = 1;
    for (const auto& blocks : assignment.blocks) {
        std::int64_t heads = 0;
        for (const PairBlock& block : blocks) heads += std::ssize(block.heads);
        most_passes = std::max(most_passes, heads);
    }
    const auto fits = [&](const Plan& plan) {
        return plan.peak_bytes() <= input.budget && (!input.device || plan.peak_device_bytes() <= input.device_budget);
    };
    std::int64_t passes = 1;
    Plan plan = plan_with(assignment, passes, false);
    if (!fits(plan)) {
        // No number of passes takes less memory than the most: a hopeless budget is told at once.
        if (const Plan smallest = plan_with(assignment, most_passes, false); !fits(smallest)) too_small(smallest);
    }
    while (!fits(plan)) {
        passes = more_passes(passes, most_passes);
        plan = plan_with(assignment, passes, false);
    }
    const bool rising =
        std::any_of(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& rank) { return !rank.rising.empty(); });
    if (!rising) return plan;
    Plan resident = plan_with(assignment, passes, true);
    return fits(resident) ? resident : plan;
}

std::int64_t RankPlan::flops() const {
    std::int64_t sum = 0;
    for (const Work& of_measure : work) sum += of_measure.products;
    return sum;
}

const Load* Plan::load(std::int64_t pass, std::int64_t round, std::int64_t rank) const {
    const RankPlan& mine = ranks[static_cast<std::size_t>(rank)];
    const std::vector<Load>& loads = pass == 0 ? mine.loads : mine.later_loads;
    return round < std::ssize(loads) ? &loads[static_cast<std::size_t>(round)] : nullptr;
}

std::int64_t Plan::rounds(std::int64_t pass) const {
    std::int64_t most = 0;
    for (const RankPlan& rank : ranks) {
        most = std::max(most, std::int64_t{std::ssize(pass == 0 ? rank.loads : rank.later_loads)});
    }
    return most;
}

bool Plan::exchanges(std::int64_t pass, std::int64_t round) const {
    for (std::int64_t rank = 0; rank < std::ssize(ranks); ++rank) {
        const Load* brought = load(pass, round, rank);
        if (brought != nullptr && brought->heads) return true;
    }
    return false;
}

std::int64_t Plan::pair_rounds(std::int64_t pass) const {
    std::int64_t most = 0;
    for (const RankPlan& rank : ranks)
        most = std::max(most, std::int64_t{std::ssize(rank.passes[static_cast<std::size_t>(pass)].visits)});
    return most;
}

std::vector<std::int64_t> Plan::heads_in_pass(std::int64_t pass) const {
    std::set<std::int64_t> heads;
    for (const RankPlan& rank : ranks) {
        for (const GroupShare& held : rank.passes[static_cast<std::size_t>(pass)].held)
            heads.insert(held.heads.begin(), held.heads.end());
    }
    return {heads.begin(), heads.end()};
}

std::vector<std::int64_t> Plan::groups_in_pass(std::int64_t pass) const {
    std::set<std::int64_t> groups;
    for (const RankPlan& rank : ranks) {
        for (const GroupShare& held : rank.passes[static_cast<std::size_t>(pass)].held) groups.insert(held.group);
    }
    return {groups.begin(), groups.end()};
}

namespace {

void append_blocks(const std::vector<GroupShare>& held, std::int64_t layer, std::int64_t peer,
                   std::vector<BlockTransfer>& out) {
    for (const GroupShare& share_of_group : held)
        out.push_back({true, share_of_group.group, layer, peer, share_of_group.form});
    for (const GroupShare& share_of_group : held) {
        for (const std::int64_t head : share_of_group.heads)
            out.push_back({false, head, layer, peer, share_of_group.form});
    }
}

// The layer among those with attention whose head blocks a load brings; -1 for none.
std::int64_t layer_of(const Plan& plan, const Load* load) {
    if (load == nullptr || !load->heads) return -1;
    return std::lower_bound(plan.attention_rows.begin(), plan.attention_rows.end(), load->row) -
           plan.attention_rows.begin();
}

}  // namespace

std::vector<BlockTransfer> Plan::sends(std::int64_t pass, std::int64_t round, std::int64_t rank) const {
    std::vector<BlockTransfer> out;
    const std::int64_t layer = layer_of(*this, load(pass, round, rank));
    if (layer < 0) return out;
    for (std::size_t peer = 0; peer < ranks.size(); ++peer) {
        append_blocks(ranks[peer].passes[static_cast<std::size_t>(pass)].held, layer, static_cast<std::int64_t>(peer),
                      out);
    }
    return out;
}

std::vector<BlockTransfer> Plan::receives(std::int64_t pass, std::int64_t round, std::int64_t rank) const {
    std::vector<BlockTransfer> out;
    for (std::int64_t peer = 0; peer < std::ssize(ranks); ++peer) {
        const std::int64_t layer = layer_of(*this, load(pass, round, peer));
        if (layer < 0) continue;
        append_blocks(ranks[static_cast<std::size_t>(rank)].passes[static_cast<std::size_t>(pass)].held, layer, peer,
                      out);
    }
    return out;
}

std::int64_t Plan::bytes_read() const {
    std::int64_t sum = 0;
    for (const RankPlan& rank : ranks) sum += rank.bytes_read;
    return sum;
}

std::int64_t Plan::flops() const {
    std::int64_t sum = 0;
    for (const RankPlan& rank : ranks) sum += rank.flops();
    return sum;
}

std::int64_t Plan::peak_bytes() const {
    std::int64_t peak = 0;
    for (const RankPlan& rank : ranks) peak = std::max(peak, rank.memory.total());
    return peak;
}

std::int64_t Plan::peak_device_bytes() const {
    std::int64_t peak = 0;
    for (const RankPlan& rank : ranks) peak = std::max(peak, rank.device.total());
    return peak;
}

double Plan::load_imbalance() const {
    return largest_over_mean(ranks, [](const RankPlan& rank) { return rank.bytes_read; });
}

double Plan::flops_imbalance() const {
    return largest_over_mean(ranks, [](const RankPlan& rank) { return rank.flops(); });
}

}  // namespace geom
