#include "plan/ownership.hpp"

#include <algorithm>
#include <iterator>
#include <numeric>

namespace geom {

namespace {

std::int64_t bytes_of(const std::array<std::int64_t, layer_part_count>& parts) {
    return std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
}

// The runs that result when no run may exceed `limit`, each as long as possible but leaving a layer for every rank to
// come.
std::vector<Range> runs_within(const std::vector<std::int64_t>& bytes, std::int64_t ranks, std::int64_t limit) {
    std::vector<Range> runs;
    const auto layers = static_cast<std::int64_t>(bytes.size());
    std::int64_t at = 0;
    for (std::int64_t r = 0; r < ranks; ++r) {
        const std::int64_t begin = at, last_end = layers - (ranks - r - 1);
        std::int64_t sum = 0;
        while (at < last_end && (at == begin || sum + bytes[static_cast<std::size_t>(at)] <= limit)) {
            sum += bytes[static_cast<std::size_t>(at++)];
        }
        runs.push_back({begin, at});
    }
    return runs;
}

std::vector<Range> contiguous_runs(const std::vector<std::int64_t>& bytes, std::int64_t ranks) {
    std::int64_t low = *std::max_element(bytes.begin(), bytes.end());
    std::int64_t high = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
    while (low < high) {  // the smallest limit under which everything is covered
        const std::int64_t middle = low + (high - low) / 2;
        if (runs_within(bytes, ranks, middle).back().end == static_cast<std::int64_t>(bytes.size())) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return runs_within(bytes, ranks, low);
}

// A layer's parts over `count` ranks: the largest part goes to the rank with the fewest bytes so far.
std::vector<LoadItem> divide_layer(std::int64_t layer, const std::array<std::int64_t, layer_part_count>& bytes,
                                   std::int64_t count) {
    std::array<std::size_t, layer_part_count> order{0, 1, 2, 3};
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });
    std::vector<LoadItem> items(static_cast<std::size_t>(count), LoadItem{layer, {false, false, false, false}});
    std::vector<std::int64_t> load(static_cast<std::size_t>(count), 0);
    for (const std::size_t part : order) {
        const auto lightest = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
        items[lightest].parts[part] = true;
        load[lightest] += bytes[part];
    }
    return items;
}

}  // namespace

std::vector<std::vector<LoadItem>> assign_layers(const PartBytes& bytes, std::int64_t ranks) {
    const auto layers = static_cast<std::int64_t>(bytes.size());
    std::vector<std::vector<LoadItem>> owned(static_cast<std::size_t>(ranks));
    if (layers == 0) return owned;
    if (ranks <= layers) {
        std::vector<std::int64_t> sums;
        std::transform(bytes.begin(), bytes.end(), std::back_inserter(sums), bytes_of);
        const std::vector<Range> runs = contiguous_runs(sums, ranks);
        for (std::int64_t r = 0; r < ranks; ++r) {
            const Range run = runs[static_cast<std::size_t>(r)];
            for (std::int64_t l = run.begin; l < run.end; ++l)
                owned[static_cast<std::size_t>(r)].push_back({l, {true, true, true, true}});
        }
        return owned;
    }
    std::int64_t rank = 0;
    for (std::int64_t l = 0; l < layers; ++l) {
        const auto& parts = bytes[static_cast<std::size_t>(l)];
        const std::int64_t filled = std::count_if(parts.begin(), parts.end(), [](std::int64_t b) { return b > 0; });
        const std::int64_t count =
            std::clamp<std::int64_t>(share(ranks, layers, l).size(), 1, std::max<std::int64_t>(1, filled));
        for (LoadItem& item : divide_layer(l, parts, count)) owned[static_cast<std::size_t>(rank++)].push_back(item);
    }
    return owned;
}

std::vector<std::vector<GroupShare>> assign_heads(std::int64_t heads, std::int64_t kv_heads,
                                                  const std::vector<std::int64_t>& pending, std::int64_t ranks) {
    std::vector<GroupShare> groups;
    for (const std::int64_t head : pending) {
        const std::int64_t group = head / (heads / kv_heads);
        if (groups.empty() || groups.back().group != group) groups.push_back({group, {}});
        groups.back().heads.push_back(head);
    }
    std::vector<std::vector<GroupShare>> owned(static_cast<std::size_t>(ranks));
    const auto count = static_cast<std::int64_t>(groups.size());
    if (ranks <= count) {
        for (std::int64_t r = 0; r < ranks; ++r) {
            const Range mine = share(count, ranks, r);
            owned[static_cast<std::size_t>(r)].assign(groups.begin() + mine.begin, groups.begin() + mine.end);
        }
        return owned;
    }
    std::int64_t rank = 0;
    for (std::int64_t g = 0; g < count; ++g) {
        const GroupShare& group = groups[static_cast<std::size_t>(g)];
        const auto members = static_cast<std::int64_t>(group.heads.size());
        const std::int64_t parts = std::min(share(ranks, count, g).size(), members);
        for (std::int64_t p = 0; p < parts; ++p) {
            const Range part = share(members, parts, p);
            owned[static_cast<std::size_t>(rank++)].push_back(
                {group.group, {group.heads.begin() + part.begin, group.heads.begin() + part.end}});
        }
    }
    return owned;
}

namespace {

// Pieces that the groups come to when none may have more than `most` heads.
std::int64_t pieces_within(const std::vector<GroupShare>& shares, std::int64_t most) {
    std::int64_t pieces = 0;
    for (const GroupShare& held : shares) pieces += (std::ssize(held.heads) + most - 1) / most;
    return pieces;
}

}  // namespace

std::vector<std::vector<GroupShare>> cut_into_passes(const std::vector<GroupShare>& shares, std::int64_t passes) {
    std::vector<std::vector<GroupShare>> cut(static_cast<std::size_t>(passes));
    const std::int64_t count = std::ssize(shares);
    if (passes <= count) {
        for (std::int64_t p = 0; p < passes; ++p) {
            const Range mine = share(count, passes, p);
            cut[static_cast<std::size_t>(p)].assign(shares.begin() + mine.begin, shares.begin() + mine.end);
        }
        return cut;
    }
    std::int64_t most = 0;
    for (const GroupShare& held : shares) most = std::max(most, std::int64_t{std::ssize(held.heads)});
    while (most > 1 && pieces_within(shares, most - 1) <= passes) --most;
    std::size_t pass = 0;
    for (const GroupShare& held : shares) {
        const std::int64_t members = std::ssize(held.heads), parts = (members + most - 1) / most;
        for (std::int64_t p = 0; p < parts; ++p) {
            const Range part = share(members, parts, p);
            cut[pass++].push_back({held.group, {held.heads.begin() + part.begin, held.heads.begin() + part.end}});
        }
    }
    return cut;
}

}  // namespace geom
