#include "plan/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.hpp"

namespace geom {

namespace {

std::int64_t blocks_of(const std::vector<GroupShare>& shares) {
    std::int64_t blocks = 0;
    for (const GroupShare& share_of_group : shares)
        blocks += 1 + static_cast<std::int64_t>(share_of_group.heads.size());
    return blocks;
}

std::int64_t heads_of(const std::vector<GroupShare>& shares) {
    std::int64_t heads = 0;
    for (const GroupShare& share_of_group : shares) heads += static_cast<std::int64_t>(share_of_group.heads.size());
    return heads;
}

// (H + KV) L (L + 1) / 2 tiles of hd x hd x D multiply-adds for the heads of these shares.
std::int64_t flops_of(const PlanInput& in, const std::vector<GroupShare>& shares) {
    return blocks_of(shares) * (in.layers * (in.layers + 1) / 2) * 2 * in.head_dim * in.head_dim * in.hidden;
}

// What a rank's loads cost to read in one pass: everything, or only the rows whose heads the pass holds.
struct PassReading {
    std::int64_t bytes = 0;
    std::int64_t largest_layer = 0;  // in memory
};

PassReading reading_of(const Plan& plan, std::int64_t pass, const std::vector<LoadItem>& loads) {
    const PlanInput& in = plan.input;
    const bool whole = !in.head_blocks || (pass == 0 && in.all_weights_in_first_pass);
    const std::int64_t rows =
        in.head_blocks ? static_cast<std::int64_t>(plan.heads_in_pass(pass).size() + plan.groups_in_pass(pass).size())
                       : 0;
    PassReading reading;
    for (const LoadItem& item : loads) {
        const auto l = static_cast<std::size_t>(item.layer);
        std::int64_t bytes = 0, total = 0;
        for (std::size_t p = 0; p < layer_part_count; ++p) {
            total += in.part_bytes[l][p];
            if (item.parts[p]) bytes += in.part_bytes[l][p];
        }
        double memory = total == 0 ? 0.0 : static_cast<double>(in.layer_memory[l]) / static_cast<double>(total);
        if (!whole) bytes = item.has(LayerPart::attention) ? rows * in.stored_row_block : 0;
        reading.bytes += bytes;
        reading.largest_layer =
            std::max(reading.largest_layer, static_cast<std::int64_t>(memory * static_cast<double>(bytes)));
    }
    return reading;
}

// Blocks of a round that `rank` sends to others, or gets from them.
std::int64_t moving_blocks(const Plan& plan, std::int64_t pass, std::int64_t rank, bool sent) {
    const auto blocks_in = [&](std::int64_t r) {
        return blocks_of(plan.ranks[static_cast<std::size_t>(r)].passes[static_cast<std::size_t>(pass)]);
    };
    std::int64_t blocks = 0;
    for (std::int64_t peer = 0; peer < std::ssize(plan.ranks); ++peer) {
        const std::int64_t from = sent ? rank : peer;
        if (peer == rank || plan.ranks[static_cast<std::size_t>(from)].loads.empty()) continue;
        blocks += blocks_in(sent ? peer : rank);
    }
    return blocks;
}

struct RankMemory {
    MemoryPlan host, device;
};

RankMemory memory_of(const Plan& plan, std::int64_t pass, std::int64_t rank) {
    const PlanInput& in = plan.input;
    const RankPlan& mine = plan.ranks[static_cast<std::size_t>(rank)];
    RankMemory memory;
    MemoryPlan& host = memory.host;
    MemoryPlan& computing = in.device ? memory.device : memory.host;  // where verbs read and write
    const std::int64_t in_flight = 2 * reading_of(plan, pass, mine.loads).largest_layer;
    host.process = in.process_bytes;
    host.stream = in_flight;
    host.results = in.result_bytes / in.ranks;
    host.transit = 2 * in.largest_variable / in.ranks;  // they are written a variable at a time
    if (in.device) memory.device.process = in.device_process_bytes;
    computing.stream = in_flight;
    computing.scratch = in.layer_scratch_bytes;
    host.scratch += in.layer_host_bytes;
    if (in.head_blocks) {
        const std::int64_t sent = moving_blocks(plan, pass, rank, true) * in.block_bytes;
        computing.blocks = blocks_of(mine.passes[static_cast<std::size_t>(pass)]) * in.layers * in.block_bytes;
        computing.staging = sent;
        if (in.device && in.exchange_on_host)
            host.staging = sent + moving_blocks(plan, pass, rank, false) * in.block_bytes;
        computing.products = in.kept_scratch_bytes + in.scratch_bytes;
    }
    return memory;
}

// The plan with a given number of passes, memory and costs filled in.
Plan plan_with(const PlanInput& input, std::int64_t passes) {
    Plan plan{input, passes, {}};
    const auto loads = assign_layers(input.part_bytes, input.ranks);
    const auto heads = input.head_blocks ? assign_heads(input.heads, input.kv_heads, input.pending_heads, input.ranks)
                                         : std::vector<std::vector<GroupShare>>(static_cast<std::size_t>(input.ranks));
    for (std::size_t r = 0; r < loads.size(); ++r) {
        RankPlan rank;
        rank.loads = loads[r];
        rank.passes = cut_into_passes(heads[r], passes);
        for (const auto& shares : rank.passes) rank.flops += flops_of(input, shares);
        plan.ranks.push_back(std::move(rank));
    }
    for (std::int64_t r = 0; r < input.ranks; ++r) {
        RankPlan& rank = plan.ranks[static_cast<std::size_t>(r)];
        for (std::int64_t pass = 0; pass < passes; ++pass) {
            rank.bytes_read += reading_of(plan, pass, rank.loads).bytes;
            const RankMemory memory = memory_of(plan, pass, r);
            if (memory.host.total() > rank.memory.total()) rank.memory = memory.host;
            if (memory.device.total() > rank.device.total()) rank.device = memory.device;
        }
    }
    return plan;
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
    std::int64_t most_heads = 1;
    if (input.head_blocks) {
        for (const auto& shares : assign_heads(input.heads, input.kv_heads, input.pending_heads, input.ranks)) {
            most_heads = std::max(most_heads, heads_of(shares));
        }
    }
    Plan plan;
    for (std::int64_t passes = 1; passes <= most_heads; ++passes) {
        plan = plan_with(input, passes);
        if (plan.peak_bytes() <= input.budget && plan.peak_device_bytes() <= input.device_budget) return plan;
    }
    // Of two budgets that are too small the one that lacks more is named: what it names is then enough for both.
    const bool device =
        plan.peak_device_bytes() - input.device_budget > std::max<std::int64_t>(0, plan.peak_bytes() - input.budget);
    const MemoryPlan& memory = device ? plan.ranks[0].device : plan.ranks[0].memory;
    throw Error(
        ExitCode::usage,
        fmt::format("--memory-budget {} bytes a rank{} is too small: even with one head of a rank at a time, {} "
                    "bytes are needed (process {}, two layers in flight {}, head blocks {}, scratch and results "
                    "{}); give at least that, or use more ranks",
                    device ? input.device_budget : input.budget, device ? " of GPU memory" : "",
                    device ? plan.peak_device_bytes() : plan.peak_bytes(), memory.process, memory.stream,
                    memory.blocks + memory.staging,
                    std::max(memory.scratch, memory.products) + memory.results + memory.transit));
}

std::int64_t Plan::rounds() const {
    std::size_t most = 0;
    for (const RankPlan& rank : ranks) most = std::max(most, rank.loads.size());
    return static_cast<std::int64_t>(most);
}

std::int64_t Plan::attention_layer(std::int64_t rank, std::int64_t round) const {
    const std::vector<LoadItem>& loads = ranks[static_cast<std::size_t>(rank)].loads;
    if (round >= static_cast<std::int64_t>(loads.size())) return -1;
    const LoadItem& item = loads[static_cast<std::size_t>(round)];
    return item.has(LayerPart::attention) ? item.layer : -1;
}

std::vector<std::int64_t> Plan::heads_in_pass(std::int64_t pass) const {
    std::set<std::int64_t> heads;
    for (const RankPlan& rank : ranks) {
        for (const GroupShare& held : rank.passes[static_cast<std::size_t>(pass)])
            heads.insert(held.heads.begin(), held.heads.end());
    }
    return {heads.begin(), heads.end()};
}

std::vector<std::int64_t> Plan::groups_in_pass(std::int64_t pass) const {
    std::set<std::int64_t> groups;
    for (const RankPlan& rank : ranks) {
        for (const GroupShare& held : rank.passes[static_cast<std::size_t>(pass)]) groups.insert(held.group);
    }
    return {groups.begin(), groups.end()};
}

namespace {

void append_blocks(const std::vector<GroupShare>& held, std::int64_t layer, std::int64_t peer,
                   std::vector<BlockTransfer>& out) {
    for (const GroupShare& share_of_group : held) out.push_back({true, share_of_group.group, layer, peer});
    for (const GroupShare& share_of_group : held) {
        for (const std::int64_t head : share_of_group.heads) out.push_back({false, head, layer, peer});
    }
}

}  // namespace

std::vector<BlockTransfer> Plan::sends(std::int64_t pass, std::int64_t round, std::int64_t rank) const {
    std::vector<BlockTransfer> out;
    const std::int64_t layer = attention_layer(rank, round);
    if (layer < 0) return out;
    for (std::size_t peer = 0; peer < ranks.size(); ++peer) {
        append_blocks(ranks[peer].passes[static_cast<std::size_t>(pass)], layer, static_cast<std::int64_t>(peer), out);
    }
    return out;
}

std::vector<BlockTransfer> Plan::receives(std::int64_t pass, std::int64_t round, std::int64_t rank) const {
    std::vector<BlockTransfer> out;
    for (std::size_t peer = 0; peer < ranks.size(); ++peer) {
        const std::int64_t layer = attention_layer(static_cast<std::int64_t>(peer), round);
        if (layer < 0) continue;
        append_blocks(ranks[static_cast<std::size_t>(rank)].passes[static_cast<std::size_t>(pass)], layer,
                      static_cast<std::int64_t>(peer), out);
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
    for (const RankPlan& rank : ranks) sum += rank.flops;
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
    return largest_over_mean(ranks, [](const RankPlan& rank) { return rank.flops; });
}

}  // namespace geom
