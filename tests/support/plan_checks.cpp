#include "support/plan_checks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace geom::test {

namespace {

using Place = std::tuple<std::int64_t, std::int64_t, WeightFamily>;  // row, expert or -1, family

std::string text(const Unit& unit) {
    return unit.measure + " " + std::to_string(unit.first) + " " + std::to_string(unit.second);
}
std::string text(const Place& place) {
    return "row " + std::to_string(std::get<0>(place)) + " expert " + std::to_string(std::get<1>(place)) + " " +
           std::string(name_of(std::get<2>(place)));
}

bool is_rising(const MeasureDemand& measure) { return measure.needs.rising.chunks > 0 && !measure.owed.empty(); }

const WeightShape& weight_at(const ModelShape& shape, const Place& place) {
    return *shape.at(std::get<0>(place)).find(std::get<2>(place), std::get<1>(place));
}

// Families that a unit looks at, of its own row and (`before`) of the row before.
std::vector<Place> wanted_by(const ModelShape& shape, const Needs& needs, const Unit& unit, bool before = false) {
    std::vector<Place> places;
    if (unit.of == UnitOf::expert && !before) {
        for (const WeightFamily family : {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj}) {
            if (shape.at(unit.first).has(family, unit.second)) places.emplace_back(unit.first, unit.second, family);
        }
    }
    const std::int64_t row = unit.first - (before ? 1 : 0);
    if (unit.of != UnitOf::layer || row < 0 || (before && !needs.previous_layer)) return places;
    for (const WeightFamily family : needs.together[static_cast<std::size_t>(unit.second)]) {
        if (shape.at(unit.first).has(family) && shape.at(row).has(family)) places.emplace_back(row, -1, family);
    }
    return places;
}

// What the sweep in any order has to read whole.
std::set<Place> wanted_places(const Plan& plan) {
    std::set<Place> wanted;
    for (const MeasureDemand& measure : plan.input.measures) {
        for (const Unit& unit : measure.owed) {
            if (is_rising(measure) && unit.of == UnitOf::layer) continue;
            for (const bool before : {false, true}) {
                for (const Place& place : wanted_by(plan.input.shape, measure.needs, unit, before))
                    wanted.insert(place);
            }
        }
        if (measure.needs.form != BlockForm::folded || measure.owed.empty()) continue;
        for (const std::int64_t row : plan.attention_rows) {
            if (plan.input.shape.at(row).has(WeightFamily::input_ln)) wanted.insert({row, -1, WeightFamily::input_ln});
        }
    }
    return wanted;
}

// -1 where it is of a layer.
std::vector<std::int64_t> experts_of(const Load& load) {
    return load.of == UnitOf::expert ? load.experts : std::vector<std::int64_t>{-1};
}

bool holds(const Load& load, const Place& place) {
    const auto experts = experts_of(load);
    const bool same = load.row == std::get<0>(place) && load.of != UnitOf::global &&
                      std::binary_search(experts.begin(), experts.end(), std::get<1>(place));
    return same && std::binary_search(load.whole.begin(), load.whole.end(), std::get<2>(place));
}

void expect_units_at_hand(const Plan& plan, const std::vector<Load>& loads, std::size_t i) {
    const Load& load = loads[i];
    for (const Visit& visit : load.visits) {
        const MeasureDemand& measure = plan.input.measures[static_cast<std::size_t>(visit.measure)];
        for (const Unit& unit : visit.units) {
            EXPECT_EQ(unit.of, load.of) << text(unit);
            if (load.of == UnitOf::global) {
                EXPECT_EQ(unit.first, load.index);
            }
            for (const Place& place : wanted_by(plan.input.shape, measure.needs, unit))
                EXPECT_TRUE(holds(load, place)) << text(unit) << " wants " << text(place);
            for (const Place& place : wanted_by(plan.input.shape, measure.needs, unit, true)) {
                ASSERT_TRUE(load.after_previous && i > 0) << text(unit);
                EXPECT_TRUE(holds(loads[i - 1], place)) << text(unit) << " wants " << text(place) << ", the row before";
            }
        }
    }
}

std::int64_t rows_of(const std::vector<Range>& ranges) {
    std::int64_t rows = 0;
    for (const Range range : ranges) rows += range.size();
    return rows;
}

// Rows of W_Q and W_K that a pass reads of one row's layer, where `load` has not got the whole.
std::int64_t head_bytes(const Plan& plan, std::int64_t pass, const Load& load) {
    if (!load.heads) return 0;
    const ModelShape& shape = plan.input.shape;
    std::int64_t bytes = 0;
    const auto add = [&](WeightFamily family, std::int64_t rows) {
        if (holds(load, {load.row, -1, family})) return;
        const WeightShape& weight = *shape.at(load.row).find(family);
        bytes += rows * weight.cols * size_of(weight.dtype);
    };
    add(WeightFamily::q_proj, rows_of(query_rows(shape, load.row, plan.heads_in_pass(pass))));
    add(WeightFamily::k_proj, rows_of(key_rows(shape, load.row, plan.groups_in_pass(pass))));
    return bytes;
}

std::int64_t expert_bytes(const LayerShape& layer) {
    std::int64_t bytes = 0;
    for (const WeightShape& weight : layer.weights) bytes += weight.expert < 0 ? 0 : weight.bytes();
    return bytes;
}

std::set<Place> rising_places(const Plan& plan) {
    std::set<Place> wanted;
    for (const MeasureDemand& measure : plan.input.measures) {
        if (!is_rising(measure)) continue;
        for (std::int64_t row = 0; row < plan.input.shape.rows(); ++row) {
            for (const auto& set : measure.needs.together) {
                for (const WeightFamily family : set) {
                    if (plan.input.shape.at(row).has(family)) wanted.insert({row, -1, family});
                }
            }
        }
    }
    return wanted;
}

/// Once, but for rows that are in memory since the first sweep; and strips of what comes after it.
std::int64_t rising_bytes(const Plan& plan) {
    const ModelShape& shape = plan.input.shape;
    std::int64_t bytes = 0;
    for (const RankPlan& rank : plan.ranks) {
        for (const Load& load : rank.after)
            bytes += load.rows.size() * shape.globals[static_cast<std::size_t>(load.index)].bytes() /
                     shape.globals[static_cast<std::size_t>(load.index)].rows;
        for (const Load& load : rank.rising) {
            EXPECT_TRUE(plan.resident || !load.shared);
            if (load.shared) continue;
            for (const WeightFamily family : load.whole) bytes += weight_at(shape, {load.row, -1, family}).bytes();
            if (load.of == UnitOf::layer && !load.experts.empty()) bytes += expert_bytes(shape.at(load.row));
        }
    }
    return bytes;
}

}  // namespace

void expect_units_are_owned_once(const Plan& plan) {
    std::map<Unit, std::int64_t> left;  // of a global: rows that no strip has brought yet
    const auto& globals = plan.input.shape.globals;
    for (const MeasureDemand& measure : plan.input.measures) {
        for (const Unit& unit : measure.owed)
            left[unit] = unit.of == UnitOf::global ? globals[static_cast<std::size_t>(unit.first)].rows : 1;
    }
    std::map<Unit, std::size_t> owner;
    std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> strips;  // rows, by measure and global
    for (std::size_t r = 0; r < plan.ranks.size(); ++r) {
        const auto take = [&](const std::vector<Visit>& visits, std::int64_t amount) {
            for (const Visit& visit : visits) {
                const std::string& name = plan.input.measures[static_cast<std::size_t>(visit.measure)].name;
                EXPECT_TRUE(std::is_sorted(visit.units.begin(), visit.units.end()));
                for (const Unit& unit : visit.units) {
                    EXPECT_EQ(unit.measure, name);
                    left[unit] -= amount;
                    EXPECT_EQ(owner.emplace(unit, r).first->second, r) << text(unit) << " is of two ranks";
                }
            }
        };
        for (const Load& load : plan.ranks[r].loads)
            take(load.visits, load.of == UnitOf::global ? load.rows.size() : 1);
        for (const Load& load : plan.ranks[r].later_loads) EXPECT_TRUE(load.visits.empty());
        for (const Load& load : plan.ranks[r].rising) take(load.visits, 1);
        for (const Load& load : plan.ranks[r].after) {  // the first strip's rank has the unit, all strips are looked at
            take(load.visits, globals[static_cast<std::size_t>(load.index)].rows);
            strips[{load.visits.front().measure, load.index}] += load.rows.size();
        }
        for (const PairPass& pass : plan.ranks[r].passes) {
            for (const PairVisit& visit : pass.visits) take(visit.visits, 1);
        }
    }
    for (const auto& [unit, amount] : left) EXPECT_EQ(amount, 0) << text(unit);
    for (const auto& [which, rows] : strips) EXPECT_EQ(rows, globals[static_cast<std::size_t>(which.second)].rows);
}

void expect_weights_are_at_hand(const Plan& plan) {
    std::vector<std::int64_t> rising_rows;
    for (const RankPlan& rank : plan.ranks) {
        std::int64_t row = -1;
        for (std::size_t i = 0; i < rank.loads.size(); ++i) {
            const Load& load = rank.loads[i];
            if (load.of == UnitOf::layer) {
                EXPECT_GT(load.row, row) << "layers of a rank rise";
                row = load.row;
            }
            if (load.after_previous) {
                ASSERT_GT(i, 0U);
                EXPECT_EQ(rank.loads[i - 1].row, load.row - 1);
                EXPECT_GE(rank.slots, 3) << "two layers in hand, one on its way";
            }
            expect_units_at_hand(plan, rank.loads, i);
        }
        for (std::size_t i = 0; i < rank.rising.size(); ++i) {
            rising_rows.push_back(rank.rising[i].row);
            expect_units_at_hand(plan, rank.rising, i);
            EXPECT_FALSE(plan.resident && rank.slots < std::ssize(rank.rising));
        }
    }
    std::set<std::int64_t> wanted;
    for (const Place& place : rising_places(plan)) wanted.insert(std::get<0>(place));
    EXPECT_EQ(rising_rows, std::vector<std::int64_t>(wanted.begin(), wanted.end()))
        << "ranks in turn, each with rows in turn";
}

void expect_nothing_is_read_twice(const Plan& plan) {
    const ModelShape& shape = plan.input.shape;
    std::map<Place, int> counted, repeated;
    std::set<Place> rising;
    std::map<std::int64_t, int> head_loads;  // by row
    std::int64_t bytes = rising_bytes(plan);
    for (const RankPlan& rank : plan.ranks) {
        for (const Load& load : rank.rising) {
            for (const WeightFamily family : load.whole) rising.insert({load.row, -1, family});
        }
        for (const Load& load : rank.loads) {
            if (load.of == UnitOf::global) {
                const WeightShape& weight = shape.globals[static_cast<std::size_t>(load.index)];
                bytes += load.rows.size() * weight.cols * size_of(weight.dtype);
                continue;
            }
            for (const std::int64_t expert : experts_of(load)) {
                for (const WeightFamily family : load.whole) {
                    const Place place{load.row, expert, family};
                    const bool again = std::binary_search(load.repeated.begin(), load.repeated.end(), family);
                    ++(again ? repeated : counted)[place];
                    bytes += weight_at(shape, place).bytes();
                }
            }
            if (load.heads) ++head_loads[load.row];
            bytes += head_bytes(plan, 0, load) +
                     (load.of == UnitOf::layer && !load.experts.empty() ? expert_bytes(shape.at(load.row)) : 0);
        }
        for (const Load& load : rank.later_loads) {
            for (std::int64_t pass = 1; pass < plan.passes; ++pass) {
                bytes += head_bytes(plan, pass, load);
                for (const WeightFamily family : load.whole) bytes += weight_at(shape, {load.row, -1, family}).bytes();
            }
        }
    }
    const auto wanted = wanted_places(plan);
    for (const Place& place : wanted) {
        const auto& [row, expert, family] = place;
        const bool of_heads = family == WeightFamily::q_proj || family == WeightFamily::k_proj;
        // A halo may be counted by the owner of the row: with the rows of heads, or in the rising sweep.
        const bool by_owner = (of_heads && head_loads.contains(row)) || rising.contains(place);
        EXPECT_TRUE(counted.contains(place) || (repeated.contains(place) && by_owner))
            << text(place) << " is counted by nobody";
    }
    for (const auto& [place, times] : counted) {  // once, also what is loaded for the sweep to come
        EXPECT_TRUE(times == 1 && (wanted.contains(place) || (plan.resident && rising.contains(place)))) << text(place);
    }
    for (const auto& [place, times] : repeated) EXPECT_TRUE(times == 1 && wanted.contains(place)) << text(place);
    for (const std::int64_t row : plan.attention_rows) EXPECT_EQ(head_loads[row], 1) << "heads of row " << row;
    EXPECT_EQ(head_loads.size(), plan.attention_rows.size());
    EXPECT_EQ(plan.bytes_read(), bytes);
}

void expect_heads_are_at_hand(const Plan& plan) {
    const std::int64_t size = plan.input.shape.group_size();
    for (const RankPlan& rank : plan.ranks) {
        ASSERT_EQ(std::ssize(rank.passes), plan.passes);
        for (const PairPass& pass : rank.passes) {
            std::pair<BlockForm, std::int64_t> last{BlockForm::stored, -1};
            for (const GroupShare& held : pass.held) {
                const std::pair<BlockForm, std::int64_t> group{held.form, held.group};
                EXPECT_GT(group, last) << "a group once in a pass of a rank, in each form";
                last = group;
                EXPECT_FALSE(held.heads.empty());
                EXPECT_TRUE(std::is_sorted(held.heads.begin(), held.heads.end()));
                for (const std::int64_t head : held.heads) EXPECT_EQ(head / size, held.group);
            }
            for (const PairVisit& visit : pass.visits) {
                const GroupShare& left = pass.held.at(static_cast<std::size_t>(visit.left));
                const GroupShare& right = pass.held.at(static_cast<std::size_t>(visit.right));
                ASSERT_FALSE(visit.heads.empty());
                EXPECT_NE(std::search(left.heads.begin(), left.heads.end(), visit.heads.begin(), visit.heads.end()),
                          left.heads.end())
                    << "the heads of a visit lie one after the other in memory";
                for (const Visit& of_measure : visit.visits) {
                    const Needs& needs = plan.input.measures[static_cast<std::size_t>(of_measure.measure)].needs;
                    EXPECT_TRUE(left.form == needs.form && right.form == needs.form);
                    for (const Unit& unit : of_measure.units) {
                        EXPECT_TRUE(std::binary_search(visit.heads.begin(), visit.heads.end(), unit.first));
                        EXPECT_EQ(unit.of == UnitOf::pair ? unit.second : left.group, right.group);
                        if (unit.of == UnitOf::pair) {
                            EXPECT_EQ(std::ssize(right.heads), size) << "all heads of the right side";
                        }
                    }
                }
            }
        }
    }
}

void expect_exchange_is_complete(const Plan& plan) {
    using Block = std::tuple<BlockForm, bool, std::int64_t, std::int64_t>;  // form, key, head, layer
    const std::int64_t ranks = std::ssize(plan.ranks), layers = std::ssize(plan.attention_rows);
    for (std::int64_t pass = 0; pass < plan.passes; ++pass) {
        std::vector<std::vector<Block>> arrived(static_cast<std::size_t>(ranks));
        for (std::int64_t round = 0; round < plan.rounds(pass); ++round) {
            std::map<std::pair<std::int64_t, std::int64_t>, std::vector<Block>> sent, received;  // (from, to)
            for (std::int64_t r = 0; r < ranks; ++r) {
                for (const BlockTransfer& b : plan.sends(pass, round, r))
                    sent[{r, b.peer}].emplace_back(b.form, b.key, b.head, b.layer);
                for (const BlockTransfer& b : plan.receives(pass, round, r)) {
                    received[{b.peer, r}].emplace_back(b.form, b.key, b.head, b.layer);
                    arrived[static_cast<std::size_t>(r)].emplace_back(b.form, b.key, b.head, b.layer);
                }
            }
            ASSERT_EQ(sent, received) << "pass " << pass << " round " << round;
            EXPECT_TRUE(sent.empty() || plan.exchanges(pass, round));
        }
        for (std::size_t r = 0; r < plan.ranks.size(); ++r) {
            std::vector<Block> wanted;
            for (const GroupShare& held : plan.ranks[r].passes[static_cast<std::size_t>(pass)].held) {
                for (std::int64_t l = 0; l < layers; ++l) {
                    wanted.emplace_back(held.form, true, held.group, l);
                    for (const std::int64_t head : held.heads) wanted.emplace_back(held.form, false, head, l);
                }
            }
            std::sort(wanted.begin(), wanted.end());
            std::sort(arrived[r].begin(), arrived[r].end());
            ASSERT_EQ(arrived[r], wanted) << "pass " << pass << " rank " << r;
        }
    }
}

void expect_within_budget(const Plan& plan) {
    EXPECT_LE(plan.peak_bytes(), plan.input.budget);
    if (plan.input.device) {
        EXPECT_LE(plan.peak_device_bytes(), plan.input.device_budget);
    }
}

void expect_sound(const Plan& plan) {
    expect_units_are_owned_once(plan);
    expect_weights_are_at_hand(plan);
    expect_nothing_is_read_twice(plan);
    expect_heads_are_at_hand(plan);
    expect_exchange_is_complete(plan);
    expect_within_budget(plan);
}

}  // namespace geom::test
