#include "plan/demand.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr std::array expert_families{WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj};

[[noreturn]] void fail(const Unit& unit, const char* why) {
    throw Error(ExitCode::internal, fmt::format("unit {} {} {} of kind {}: {}", unit.measure, unit.first, unit.second,
                                                static_cast<int>(unit.of), why));
}

template <class T>
void insert_rising(std::vector<T>& values, const T& value) {
    const auto at = std::lower_bound(values.begin(), values.end(), value);
    if (at == values.end() || *at != value) values.insert(at, value);
}

// Families of a layer, joined by what has to lie on one rank.
class Joined {
public:
    Joined() { std::iota(leader_.begin(), leader_.end(), 0); }

    void join(const std::vector<WeightFamily>& families) {
        for (const WeightFamily family : families) leader_[find(index(family))] = find(index(families.front()));
    }
    std::size_t part(WeightFamily family) { return find(index(family)); }

private:
    static std::size_t index(WeightFamily family) { return static_cast<std::size_t>(family); }
    std::size_t find(std::size_t i) {
        while (leader_[i] != i) i = leader_[i] = leader_[leader_[i]];
        return i;
    }
    std::array<std::size_t, weight_family_count> leader_{};
};

// One layer's demand, as its measures are gone through.
class RowDemand {
public:
    RowDemand(const LayerShape& layer, std::int64_t row) : layer_(layer), row_(row) {}

    void want_set(std::int64_t measure, const Needs& needs, const Unit& unit) {
        std::vector<WeightFamily> there = present(needs.together[static_cast<std::size_t>(unit.second)]);
        joined_.join(there);
        const WeightFamily first = there.front();
        for (const WeightFamily family : there) {
            insert_rising(whole_, family);
            if (needs.previous_layer) insert_rising(previous_, family);
        }
        visits_.push_back({first, measure, unit});
    }

    void want_heads(bool folded) {
        joined_.join({WeightFamily::q_proj, WeightFamily::k_proj});
        heads_ = true;
        if (!folded || !layer_.has(WeightFamily::input_ln)) return;
        joined_.join({WeightFamily::q_proj, WeightFamily::input_ln});
        insert_rising(whole_, WeightFamily::input_ln);
    }

    /// All families of all sets on one rank, also where no unit of this very row is owed.
    void want_rising(const Needs& needs) {
        rising_experts_ = rising_experts_ || needs.rising.experts;
        std::vector<WeightFamily> all;
        for (const auto& set : needs.together) {
            for (const WeightFamily family : present(set)) insert_rising(all, family);
        }
        if (all.empty()) return;
        joined_.join(all);
        for (const WeightFamily family : all) insert_rising(rising_, family);
    }

    void want_expert(std::int64_t measure, const Unit& unit) {
        if (unit.second < 0 || unit.second >= layer_.experts) fail(unit, "the layer has no such expert");
        Part& part = experts_[unit.second];
        part.row = row_;
        part.expert = unit.second;
        if (part.whole.empty()) {
            for (const WeightFamily family : expert_families) {
                const WeightShape* weight = layer_.find(family, unit.second);
                if (weight == nullptr) continue;
                part.whole.push_back(family);
                part.bytes += weight->bytes();
            }
        }
        add(part.visits, measure, unit);
    }

    std::vector<Part> parts() {
        std::map<std::size_t, Part> found;
        const auto part_of = [&](WeightFamily family) -> Part& {
            Part& part = found[joined_.part(family)];
            part.row = row_;
            return part;
        };
        std::vector<WeightFamily> loaded = whole_;
        for (const WeightFamily family : rising_) insert_rising(loaded, family);
        for (const WeightFamily family : whole_) part_of(family).whole.push_back(family);
        for (const WeightFamily family : rising_) part_of(family).rising.push_back(family);
        for (const WeightFamily family : previous_) part_of(family).previous.push_back(family);
        if (heads_) {
            part_of(WeightFamily::q_proj).heads = true;
            insert_rising(loaded, WeightFamily::q_proj);
            insert_rising(loaded, WeightFamily::k_proj);
        }
        for (const WeightFamily family : loaded) part_of(family).bytes += layer_.find(family)->bytes();
        if (rising_experts_ && !rising_.empty()) part_of(rising_.front()).bytes += bytes_of_other_experts();
        for (const Wanted& wanted : visits_) add(part_of(wanted.family).visits, wanted.measure, wanted.unit);
        std::vector<Part> parts;
        for (auto& [leader, part] : found) parts.push_back(std::move(part));
        std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return first(a) < first(b); });
        for (auto& [expert, part] : experts_) parts.push_back(std::move(part));
        return parts;
    }

private:
    struct Wanted {
        WeightFamily family;
        std::int64_t measure;
        Unit unit;
    };

    // Those that no part of their own counts.
    std::int64_t bytes_of_other_experts() const {
        std::int64_t bytes = 0;
        for (const WeightShape& weight : layer_.weights) {
            if (weight.expert >= 0 && !experts_.contains(weight.expert)) bytes += weight.bytes();
        }
        return bytes;
    }

    static WeightFamily first(const Part& part) {
        return part.heads || part.whole.empty() ? WeightFamily::q_proj : part.whole.front();
    }
    static void add(std::vector<Visit>& visits, std::int64_t measure, const Unit& unit) {
        if (visits.empty() || visits.back().measure != measure) visits.push_back({measure, {}});
        visits.back().units.push_back(unit);
    }
    std::vector<WeightFamily> present(const std::vector<WeightFamily>& set) const {
        std::vector<WeightFamily> there;
        for (const WeightFamily family : set) {
            if (layer_.has(family)) insert_rising(there, family);
        }
        return there;
    }

    const LayerShape& layer_;
    std::int64_t row_;
    Joined joined_;
    std::vector<WeightFamily> whole_, previous_, rising_;
    bool heads_ = false, rising_experts_ = false;
    std::vector<Wanted> visits_;
    std::map<std::int64_t, Part> experts_;
};

bool fits(const Needs& needs, UnitOf of) {
    switch (of) {
        case UnitOf::layer:
            return !needs.together.empty();
        case UnitOf::expert:
            return needs.experts;
        case UnitOf::global:
            return needs.globals || needs.rising.after >= 0;
        case UnitOf::head:
            return needs.pairs == HeadPairs::same_head;
        case UnitOf::pair:
            return needs.pairs == HeadPairs::all_heads;
    }
    return false;
}

void check_unit(const ModelShape& shape, const Needs& needs, const Unit& unit) {
    if (!fits(needs, unit.of)) fail(unit, "the measure's needs do not say so");
    const auto within = [&](std::int64_t value, std::int64_t end) {
        if (value < 0 || value >= end) fail(unit, "outside of the model");
    };
    switch (unit.of) {
        case UnitOf::layer: {
            within(unit.first, shape.rows());
            within(unit.second, std::ssize(needs.together));
            const auto& set = needs.together[static_cast<std::size_t>(unit.second)];
            const auto is_there = [&](WeightFamily family) { return shape.at(unit.first).has(family); };
            if (std::none_of(set.begin(), set.end(), is_there)) fail(unit, "the layer has none of these weights");
            break;
        }
        case UnitOf::expert:
            within(unit.first, shape.rows());
            break;
        case UnitOf::global:
            within(unit.first, std::ssize(shape.globals));
            break;
        case UnitOf::head:
            within(unit.first, shape.heads);
            break;
        case UnitOf::pair:
            within(unit.first, shape.heads);
            within(unit.second, shape.groups());
            break;
    }
}

void want_global(const ModelShape& shape, std::int64_t measure, const Unit& unit, std::vector<Part>& globals) {
    auto found =
        std::find_if(globals.begin(), globals.end(), [&](const Part& part) { return part.expert == unit.first; });
    if (found == globals.end()) {
        const WeightShape& weight = shape.globals[static_cast<std::size_t>(unit.first)];
        found = globals.insert(found, Part{-1, unit.first, {weight.family}, {}, false, {}, weight.bytes()});
    }
    found->visits.push_back({measure, {unit}});
}

void count_cost(const ModelShape& shape, std::span<const MeasureDemand> measures, Part& part) {
    part.cost = 16 * part.bytes;
    for (const Visit& visit : part.visits) {
        const MeasureDemand& measure = measures[static_cast<std::size_t>(visit.measure)];
        if (measure.work) part.cost += measure.work(shape, visit.units).fp64;
    }
}

}  // namespace

Demand demand_of(const ModelShape& shape, std::span<const MeasureDemand> measures) {
    Demand demand;
    std::vector<RowDemand> rows;
    for (std::int64_t row = 0; row < shape.rows(); ++row) rows.emplace_back(shape.at(row), row);
    for (std::size_t m = 0; m < measures.size(); ++m) {
        const Needs& needs = measures[m].needs;
        const auto measure = static_cast<std::int64_t>(m);
        const bool rising = needs.rising.chunks > 0 && !measures[m].owed.empty();
        for (const Unit& unit : measures[m].owed) {
            check_unit(shape, needs, unit);
            if (unit.of == UnitOf::layer) {
                if (!rising) rows[static_cast<std::size_t>(unit.first)].want_set(measure, needs, unit);
            } else if (unit.of == UnitOf::expert) {
                rows[static_cast<std::size_t>(unit.first)].want_expert(measure, unit);
            } else if (unit.of == UnitOf::global && unit.first == needs.rising.after) {
                demand.after.push_back({measure, {unit}});
            } else if (unit.of == UnitOf::global) {
                want_global(shape, measure, unit, demand.globals);
            } else {
                demand.heads = true;
                demand.folded = demand.folded || needs.form == BlockForm::folded;
            }
        }
        if (!rising) continue;
        demand.rising = true;
        for (RowDemand& row : rows) row.want_rising(needs);
    }
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        RowDemand& wanted = rows[static_cast<std::size_t>(row)];
        if (demand.heads && shape.at(row).attention) wanted.want_heads(demand.folded);
        demand.rows.push_back(wanted.parts());
        for (Part& part : demand.rows.back()) count_cost(shape, measures, part);
    }
    for (Part& part : demand.globals) count_cost(shape, measures, part);
    return demand;
}

std::vector<WeightRows> rows_read(const ModelShape& shape, const Needs& needs, const Unit& unit) {
    std::vector<WeightRows> read;
    const auto add = [&](std::int64_t row, WeightFamily family, std::int64_t expert) {
        const WeightShape* weight = shape.at(row).find(family, expert);
        if (weight != nullptr) read.push_back({row, family, expert, {0, weight->rows}});
    };
    if (unit.of == UnitOf::layer) {
        const auto set = needs.together.begin() + unit.second;
        const bool all = needs.rising.chunks > 0;
        std::set<WeightFamily> families;
        for (auto at = all ? needs.together.begin() : set; at != (all ? needs.together.end() : set + 1); ++at)
            families.insert(at->begin(), at->end());
        for (const WeightFamily family : families) {
            add(unit.first, family, -1);
            for (std::int64_t expert = 0; needs.rising.experts && expert < shape.at(unit.first).experts; ++expert)
                add(unit.first, family, expert);
            if (needs.previous_layer && unit.first > 0) add(unit.first - 1, family, -1);
        }
    } else if (unit.of == UnitOf::expert) {
        for (const WeightFamily family : expert_families) add(unit.first, family, unit.second);
    } else if (unit.of == UnitOf::global) {
        const WeightShape& weight = shape.globals[static_cast<std::size_t>(unit.first)];
        read.push_back({-1, weight.family, -1, {0, weight.rows}});
    } else {
        for (const std::int64_t row : shape.attention_rows()) {
            const std::int64_t hd = shape.at(row).head_dim;
            const std::int64_t key = shape.kv_head(row, unit.first / shape.group_size());
            read.push_back({row, WeightFamily::q_proj, -1, {unit.first * hd, (unit.first + 1) * hd}});
            read.push_back({row, WeightFamily::k_proj, -1, {key * hd, (key + 1) * hd}});
            if (needs.form == BlockForm::folded) add(row, WeightFamily::input_ln, -1);
        }
    }
    for (const auto& [whose, rows] : needs.besides) {
        if (whose == unit) read.push_back(rows);
    }
    return read;
}

namespace {

constexpr std::int64_t at_a_time = std::int64_t{64} << 20;  // bytes of what comes in pieces

std::int64_t rows_in(const WeightShape& global, std::int64_t bytes) noexcept {
    return std::clamp<std::int64_t>(bytes / (global.cols * size_of(memory_dtype(global.dtype))), 1, global.rows);
}

}  // namespace

std::int64_t strip_rows(const WeightShape& global) noexcept { return rows_in(global, at_a_time); }

std::int64_t shared_strip_rows(const WeightShape& global) noexcept { return rows_in(global, std::int64_t{8} << 20); }

std::int64_t experts_at_a_time(const LayerShape& layer) noexcept {
    std::int64_t bytes = 1;
    for (const WeightShape& weight : layer.weights) bytes += weight.expert == 0 ? weight.memory_bytes() : 0;
    return std::clamp<std::int64_t>(at_a_time / bytes, 1, std::max<std::int64_t>(1, layer.experts));
}

}  // namespace geom
