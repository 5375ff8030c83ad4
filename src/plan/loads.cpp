#include "plan/loads.hpp"

#include <algorithm>
#include <numeric>

#include "plan/ownership.hpp"

namespace geom {

namespace {

constexpr std::int64_t alignment = 64;  // of matrices in a buffer (stream/layer_stream.cpp)

void insert_all(std::vector<WeightFamily>& families, const std::vector<WeightFamily>& more) {
    for (const WeightFamily family : more) {
        const auto at = std::lower_bound(families.begin(), families.end(), family);
        if (at == families.end() || *at != family) families.insert(at, family);
    }
}

// One rank's loads, part by part in the order of rows.
class Sequence {
public:
    Sequence(const ModelShape& shape, const Demand& demand) : shape_(shape), demand_(demand) {}

    void add_layer_part(const Part& part) {
        if (part.whole.empty() && !part.heads) return;  // of a rising sweep alone
        if (loads_.empty() || loads_.back().row != part.row) begin_row(part.row);
        Load& load = loads_.back();
        insert_all(load.whole, part.whole);
        load.heads = load.heads || part.heads;
        for (const Visit& visit : part.visits) add(load.visits, visit);
        if (part.previous.empty() || part.row == 0) return;
        want_previous(part.previous);
    }

    // Beside the expert before it while there is room: their matrices are small, and threads take one each.
    void add_expert(const Part& part) {
        if (after_.empty() || !takes_another(after_.back(), part)) {
            Load load;
            load.of = UnitOf::expert;
            load.row = part.row;
            load.whole = part.whole;
            after_.push_back(std::move(load));
        }
        after_.back().experts.push_back(part.expert);
        for (const Visit& visit : part.visits) add(after_.back().visits, visit);
    }

    void add_global(const Part& part) {
        const WeightShape& weight = shape_.globals[static_cast<std::size_t>(part.expert)];
        const std::int64_t step = strip_rows(weight);
        for (std::int64_t row = 0; row < weight.rows; row += step) {
            Load load;
            load.of = UnitOf::global;
            load.index = part.expert;
            load.rows = {row, std::min(row + step, weight.rows)};
            load.whole = part.whole;
            load.visits = part.visits;
            after_.push_back(std::move(load));
        }
    }

    std::vector<Load> loads() && {
        std::move(after_.begin(), after_.end(), std::back_inserter(loads_));
        return std::move(loads_);
    }

private:
    void begin_row(std::int64_t row) {
        Load load;
        load.row = row;
        loads_.push_back(std::move(load));
    }

    // These families of the row before the last load, in the load before it.
    void want_previous(const std::vector<WeightFamily>& families) {
        const std::int64_t row = loads_.back().row - 1;
        std::vector<WeightFamily> there;
        for (const WeightFamily family : families) {
            if (shape_.at(row).has(family)) there.push_back(family);
        }
        if (there.empty()) return;
        if (loads_.size() < 2 || loads_[loads_.size() - 2].row != row) {
            Load halo;
            halo.row = row;
            loads_.insert(loads_.end() - 1, std::move(halo));
            halo_row_ = row;
        }
        loads_.back().after_previous = true;
        Load& before = loads_[loads_.size() - 2];
        insert_all(before.whole, there);
        if (row != halo_row_) return;
        for (const WeightFamily family : there) {
            if (is_read_by_owner(row, family)) insert_all(before.repeated, {family});
        }
    }

    bool is_read_by_owner(std::int64_t row, WeightFamily family) const {
        const std::vector<Part>& parts = demand_.rows[static_cast<std::size_t>(row)];
        return std::any_of(parts.begin(), parts.end(), [&](const Part& part) {
            const bool of_heads = family == WeightFamily::q_proj || family == WeightFamily::k_proj;
            return (part.heads && of_heads) || std::binary_search(part.rising.begin(), part.rising.end(), family) ||
                   (part.expert < 0 && std::binary_search(part.whole.begin(), part.whole.end(), family));
        });
    }

    bool takes_another(const Load& load, const Part& part) const {
        return load.of == UnitOf::expert && load.row == part.row && load.whole == part.whole &&
               std::ssize(load.experts) < experts_at_a_time(shape_.at(part.row));
    }

    static void add(std::vector<Visit>& visits, const Visit& visit) {
        const auto found = std::find_if(visits.begin(), visits.end(),
                                        [&](const Visit& other) { return other.measure == visit.measure; });
        if (found == visits.end()) {
            visits.push_back(visit);
        } else {
            found->units.insert(found->units.end(), visit.units.begin(), visit.units.end());
            std::sort(found->units.begin(), found->units.end());  // parts do not come in the order of units
        }
    }

    const ModelShape& shape_;
    const Demand& demand_;
    std::vector<Load> loads_, after_;
    std::int64_t halo_row_ = -1;  // the last load that is another rank's row
};

Load rising_load(const ModelShape& shape, std::span<const MeasureDemand> measures, std::int64_t row) {
    Load load;
    load.row = row;
    for (std::size_t m = 0; m < measures.size(); ++m) {
        const MeasureDemand& measure = measures[m];
        if (measure.needs.rising.chunks == 0 || measure.owed.empty()) continue;
        std::vector<WeightFamily> there;
        for (const auto& set : measure.needs.together) {
            for (const WeightFamily family : set) {
                if (shape.at(row).has(family)) insert_all(there, {family});
            }
        }
        if (there.empty()) continue;  // what is carried passes such a layer by
        insert_all(load.whole, there);
        if (measure.needs.rising.experts) {
            load.experts.resize(static_cast<std::size_t>(shape.at(row).experts));
            std::iota(load.experts.begin(), load.experts.end(), std::int64_t{0});
        }
        Visit visit{static_cast<std::int64_t>(m), {}};
        for (const Unit& unit : measure.owed) {
            if (unit.of == UnitOf::layer && unit.first == row) visit.units.push_back(unit);
        }
        load.visits.push_back(std::move(visit));
    }
    return load;
}

/// Of parts of layers by rank, and the rank of every global.
struct Owners {
    std::vector<std::vector<PartOf>> parts;
    std::vector<std::int64_t> globals;
};

// Whoever has a global gets fewer layers; where layers are divided, the rank with the least to do gets it.
Owners owners_of(const Demand& demand, std::int64_t ranks) {
    std::vector<std::vector<std::int64_t>> costs;
    for (const auto& parts : demand.rows) {
        costs.emplace_back();
        for (const Part& part : parts) costs.back().push_back(part.cost);
    }
    std::vector<std::int64_t> of_globals, held(static_cast<std::size_t>(ranks), 0);
    for (const Part& global : demand.globals) of_globals.push_back(global.cost);
    Owners owners;
    if (ranks <= std::ssize(costs)) {
        owners.globals = assign_rest(of_globals, held);
        for (std::size_t g = 0; g < of_globals.size(); ++g)
            held[static_cast<std::size_t>(owners.globals[g])] += of_globals[g];
        owners.parts = assign_parts(costs, held, !demand.rising);
        return owners;
    }
    owners.parts = assign_parts(costs, held, !demand.rising);
    for (std::size_t r = 0; r < held.size(); ++r) {
        for (const PartOf& part : owners.parts[r])
            held[r] += costs[static_cast<std::size_t>(part.row)][static_cast<std::size_t>(part.part)];
    }
    owners.globals = assign_rest(of_globals, held);
    return owners;
}

/// Strips of the globals that states are held against, dealt out to the ranks one after the other.
void deal_out_strips(const ModelShape& shape, const Demand& demand, std::vector<RankLoads>& loads) {
    for (const Visit& visit : demand.after) {
        const std::int64_t index = visit.units.front().first;
        const WeightShape& weight = shape.globals[static_cast<std::size_t>(index)];
        const std::int64_t step = shared_strip_rows(weight);
        for (std::int64_t row = 0; row < weight.rows; row += step) {
            Load load;
            load.of = UnitOf::global;
            load.index = index;
            load.rows = {row, std::min(row + step, weight.rows)};
            load.whole = {weight.family};
            load.visits = {row == 0 ? visit : Visit{visit.measure, {}}};
            loads[static_cast<std::size_t>(row / step) % loads.size()].after.push_back(std::move(load));
        }
    }
}

std::vector<Range> joined_rows(std::span<const std::int64_t> blocks, std::int64_t block_rows) {
    std::vector<Range> rows;
    for (const std::int64_t block : blocks) {
        if (!rows.empty() && rows.back().end == block * block_rows) {
            rows.back().end += block_rows;
        } else if (rows.empty() || rows.back().end < block * block_rows) {
            rows.push_back({block * block_rows, (block + 1) * block_rows});
        }
    }
    return rows;
}

}  // namespace

std::vector<RankLoads> loads_of(const ModelShape& shape, std::span<const MeasureDemand> measures, const Demand& demand,
                                std::int64_t ranks) {
    const Owners owners = owners_of(demand, ranks);
    std::vector<Sequence> sequences(static_cast<std::size_t>(ranks), Sequence(shape, demand));
    std::vector<RankLoads> loads(static_cast<std::size_t>(ranks));
    for (std::size_t r = 0; r < owners.parts.size(); ++r) {
        std::int64_t last_row = -1;
        for (const PartOf& place : owners.parts[r]) {
            const Part& part = demand.rows[static_cast<std::size_t>(place.row)][static_cast<std::size_t>(place.part)];
            if (part.expert >= 0) {
                sequences[r].add_expert(part);
                continue;
            }
            sequences[r].add_layer_part(part);
            if (!demand.rising || place.row == last_row) continue;
            last_row = place.row;
            if (Load load = rising_load(shape, measures, place.row); !load.visits.empty())
                loads[r].rising.push_back(std::move(load));
        }
    }
    for (std::size_t g = 0; g < owners.globals.size(); ++g)
        sequences[static_cast<std::size_t>(owners.globals[g])].add_global(demand.globals[g]);
    for (std::size_t r = 0; r < loads.size(); ++r) loads[r].loads = std::move(sequences[r]).loads();
    deal_out_strips(shape, demand, loads);
    return loads;
}

void share_loads(std::vector<Load>& loads, std::vector<Load>& rising) {
    for (Load& later : rising) {
        const auto first = std::find_if(loads.begin(), loads.end(), [&](const Load& load) {
            return load.of == UnitOf::layer && load.row == later.row && load.repeated.empty();
        });
        if (first == loads.end()) continue;
        insert_all(first->whole, later.whole);
        later.whole = first->whole;
        later.heads = first->heads;
        first->experts = later.experts;
        later.shared = true;
    }
}

std::vector<Range> query_rows(const ModelShape& shape, std::int64_t row, std::span<const std::int64_t> heads) {
    return joined_rows(heads, shape.at(row).head_dim);
}

std::vector<Range> key_rows(const ModelShape& shape, std::int64_t row, std::span<const std::int64_t> groups) {
    std::vector<std::int64_t> keys;
    for (const std::int64_t group : groups) {
        const std::int64_t key = shape.kv_head(row, group);
        if (keys.empty() || keys.back() != key) keys.push_back(key);
    }
    return joined_rows(keys, shape.at(row).head_dim);
}

LoadBytes bytes_of(const ModelShape& shape, const Load& load, std::span<const std::int64_t> heads,
                   std::span<const std::int64_t> groups) {
    LoadBytes bytes;
    const auto add = [&](const WeightShape& weight, std::int64_t rows) {
        bytes.stored += rows * weight.cols * size_of(weight.dtype);
        const std::int64_t memory = rows * weight.cols * size_of(memory_dtype(weight.dtype));
        bytes.memory += (memory + alignment - 1) / alignment * alignment;
    };
    if (load.of == UnitOf::global) {
        add(shape.globals[static_cast<std::size_t>(load.index)], load.rows.size());
        return bytes;
    }
    const LayerShape& layer = shape.at(load.row);
    const auto add_whole = [&](std::int64_t expert) {
        for (const WeightFamily family : load.whole) {
            const WeightShape& weight = *layer.find(family, expert);
            add(weight, weight.rows);
        }
    };
    if (load.of == UnitOf::expert) {
        for (const std::int64_t expert : load.experts) add_whole(expert);
        return bytes;
    }
    add_whole(-1);
    for (const WeightShape& weight : layer.weights) {
        if (!load.experts.empty() && weight.expert >= 0) add(weight, weight.rows);
    }
    if (!load.heads) return bytes;
    const auto is_whole = [&](WeightFamily family) {
        return std::binary_search(load.whole.begin(), load.whole.end(), family);
    };
    if (!is_whole(WeightFamily::q_proj)) {
        for (const Range rows : query_rows(shape, load.row, heads)) add(*layer.find(WeightFamily::q_proj), rows.size());
    }
    if (!is_whole(WeightFamily::k_proj)) {
        for (const Range rows : key_rows(shape, load.row, groups)) add(*layer.find(WeightFamily::k_proj), rows.size());
    }
    return bytes;
}

}  // namespace geom
