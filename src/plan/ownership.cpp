#include "plan/ownership.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <set>

namespace geom {

namespace {

std::int64_t sum_of(const std::vector<std::int64_t>& costs) {
    return std::accumulate(costs.begin(), costs.end(), std::int64_t{0});
}

// The runs that result when no rank may exceed `limit` with what it holds, each as long as possible but leaving a row
// for every rank to come.
std::vector<Range> runs_within(const std::vector<std::int64_t>& costs, const std::vector<std::int64_t>& held,
                               std::int64_t limit) {
    std::vector<Range> runs;
    const std::int64_t rows = std::ssize(costs), ranks = std::ssize(held);
    std::int64_t at = 0;
    for (std::int64_t r = 0; r < ranks; ++r) {
        const std::int64_t begin = at, last_end = rows - (ranks - r - 1);
        std::int64_t sum = held[static_cast<std::size_t>(r)];
        while (at < last_end && (at == begin || sum + costs[static_cast<std::size_t>(at)] <= limit)) {
            sum += costs[static_cast<std::size_t>(at++)];
        }
        runs.push_back({begin, at});
    }
    return runs;
}

std::vector<Range> contiguous_runs(const std::vector<std::int64_t>& costs, const std::vector<std::int64_t>& held) {
    std::int64_t low = *std::max_element(costs.begin(), costs.end());
    std::int64_t high = sum_of(costs) + *std::max_element(held.begin(), held.end());
    while (low < high) {  // the smallest limit under which everything is covered
        const std::int64_t middle = low + (high - low) / 2;
        if (runs_within(costs, held, middle).back().end == std::ssize(costs)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return runs_within(costs, held, low);
}

// A row's parts over `count` ranks: the largest part goes to the rank with the least to do so far.
std::vector<std::vector<PartOf>> divide_row(std::int64_t row, const std::vector<std::int64_t>& costs,
                                            std::int64_t count) {
    std::vector<std::size_t> order(costs.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
    std::vector<std::vector<PartOf>> shares(static_cast<std::size_t>(count));
    std::vector<std::int64_t> load(static_cast<std::size_t>(count), 0);
    for (const std::size_t part : order) {
        const auto lightest = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
        shares[lightest].push_back({row, static_cast<std::int64_t>(part)});
        load[lightest] += costs[part];
    }
    for (auto& share_of_rank : shares) {
        std::sort(share_of_rank.begin(), share_of_rank.end(),
                  [](const PartOf& a, const PartOf& b) { return a.part < b.part; });
    }
    return shares;
}

}  // namespace

std::vector<std::vector<PartOf>> assign_parts(const std::vector<std::vector<std::int64_t>>& costs,
                                              const std::vector<std::int64_t>& held, bool divide_rows) {
    const std::int64_t rows = std::ssize(costs), ranks = std::ssize(held);
    std::vector<std::vector<PartOf>> owned(static_cast<std::size_t>(ranks));
    if (rows == 0) return owned;
    if (ranks <= rows) {
        std::vector<std::int64_t> sums;
        std::transform(costs.begin(), costs.end(), std::back_inserter(sums), sum_of);
        const std::vector<Range> runs = contiguous_runs(sums, held);
        for (std::size_t r = 0; r < owned.size(); ++r) {
            for (std::int64_t row = runs[r].begin; row < runs[r].end; ++row) {
                for (std::int64_t part = 0; part < std::ssize(costs[static_cast<std::size_t>(row)]); ++part)
                    owned[r].push_back({row, part});
            }
        }
        return owned;
    }
    std::size_t rank = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto& parts = costs[static_cast<std::size_t>(row)];
        const std::int64_t most = divide_rows ? std::ssize(parts) : 1;
        const std::int64_t count =
            std::clamp<std::int64_t>(share(ranks, rows, row).size(), 1, std::max<std::int64_t>(1, most));
        for (auto& share_of_rank : divide_row(row, parts, count)) owned[rank++] = std::move(share_of_rank);
    }
    return owned;
}

std::vector<std::int64_t> assign_rest(const std::vector<std::int64_t>& costs, std::vector<std::int64_t> held) {
    std::vector<std::int64_t> owners;
    for (const std::int64_t cost : costs) {
        const auto lightest = std::min_element(held.begin(), held.end());
        *lightest += cost;
        owners.push_back(lightest - held.begin());
    }
    return owners;
}

std::vector<std::vector<PairBlock>> assign_blocks(const std::vector<PairBlock>& blocks, std::int64_t ranks) {
    std::vector<std::vector<PairBlock>> owned(static_cast<std::size_t>(ranks));
    const std::int64_t count = std::ssize(blocks);
    if (ranks <= count) {
        for (std::int64_t r = 0; r < ranks; ++r) {
            const Range mine = share(count, ranks, r);
            owned[static_cast<std::size_t>(r)].assign(blocks.begin() + mine.begin, blocks.begin() + mine.end);
        }
        return owned;
    }
    std::size_t rank = 0;
    for (std::int64_t b = 0; b < count; ++b) {
        const PairBlock& block = blocks[static_cast<std::size_t>(b)];
        const std::int64_t members = std::ssize(block.heads);
        const std::int64_t parts = std::min(share(ranks, count, b).size(), members);
        for (std::int64_t p = 0; p < parts; ++p) {
            const Range part = share(members, parts, p);
            owned[rank++].push_back({block.left,
                                     block.right,
                                     {block.heads.begin() + part.begin, block.heads.begin() + part.end},
                                     block.form});
        }
    }
    return owned;
}

namespace {

// Pieces that the blocks come to when none may have more than `most` left heads.
std::int64_t pieces_within(const std::vector<PairBlock>& blocks, std::int64_t most) {
    std::int64_t pieces = 0;
    for (const PairBlock& block : blocks) pieces += (std::ssize(block.heads) + most - 1) / most;
    return pieces;
}

}  // namespace

std::vector<std::vector<PairBlock>> cut_into_passes(const std::vector<PairBlock>& blocks, std::int64_t passes) {
    std::vector<std::vector<PairBlock>> cut(static_cast<std::size_t>(passes));
    const std::int64_t count = std::ssize(blocks);
    if (passes <= count) {
        for (std::int64_t p = 0; p < passes; ++p) {
            const Range mine = share(count, passes, p);
            cut[static_cast<std::size_t>(p)].assign(blocks.begin() + mine.begin, blocks.begin() + mine.end);
        }
        return cut;
    }
    std::int64_t most = 0;
    for (const PairBlock& block : blocks) most = std::max(most, std::int64_t{std::ssize(block.heads)});
    while (most > 1 && pieces_within(blocks, most - 1) <= passes) --most;
    std::size_t pass = 0;
    for (const PairBlock& block : blocks) {
        const std::int64_t members = std::ssize(block.heads), parts = (members + most - 1) / most;
        for (std::int64_t p = 0; p < parts; ++p) {
            const Range part = share(members, parts, p);
            cut[pass++].push_back({block.left,
                                   block.right,
                                   {block.heads.begin() + part.begin, block.heads.begin() + part.end},
                                   block.form});
        }
    }
    return cut;
}

std::vector<GroupShare> held_for(const std::vector<PairBlock>& blocks, std::int64_t group_size, bool all_pairs) {
    std::map<std::int64_t, std::set<std::int64_t>> held;
    for (const PairBlock& block : blocks) {
        held[block.left].insert(block.heads.begin(), block.heads.end());
        if (!all_pairs) continue;
        for (std::int64_t i = 0; i < group_size; ++i) held[block.right].insert(block.right * group_size + i);
    }
    std::vector<GroupShare> shares;
    for (const auto& [group, heads] : held)
        shares.push_back({group, {heads.begin(), heads.end()}, blocks.front().form});
    return shares;
}

}  // namespace geom
