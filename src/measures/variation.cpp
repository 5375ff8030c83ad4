#include "measures/variation.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "measures/function_gauge.hpp"
#include "measures/layers_on_host.hpp"
#include "measures/rotation_gauge.hpp"

namespace geom {

std::span<const Gauge> gauges() {
    static const std::array all{none_gauge(), rotation_gauge(), none_folded_gauge(), function_gauge()};
    return all;
}

namespace {

constexpr const char* group_name = "variation";
constexpr const char* legacy_name = "legacy/variation";
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// --- which pairs, families and units ---------------------------------------------------------------------------------

/// What a gauge aligns together, with the norm weights before it.
const std::vector<std::vector<WeightFamily>>& family_sets() {
    static const std::vector<std::vector<WeightFamily>> sets{
        {WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj, WeightFamily::o_proj, WeightFamily::input_ln,
         WeightFamily::q_norm, WeightFamily::k_norm},
        {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj, WeightFamily::post_attn_ln}};
    return sets;
}
constexpr std::int64_t attention_set = 0;

bool has_any(const LayerShape& layer, std::span<const WeightFamily> families) {
    return std::any_of(families.begin(), families.end(), [&](WeightFamily family) { return layer.has(family); });
}

/// Later rows of the pairs.
std::vector<std::int64_t> pair_rows(const ModelShape& shape) {
    std::vector<std::int64_t> rows;
    for (std::int64_t row = 1; row < shape.rows(); ++row) {
        if (has_any(shape.at(row), variation_families)) rows.push_back(row);
    }
    return rows;
}

/// Families of the file.
std::vector<WeightFamily> present_families(const ModelShape& shape) {
    std::vector<WeightFamily> present(variation_families.begin(), variation_families.end());
    std::erase_if(present, [&](WeightFamily family) {
        return std::none_of(shape.layers.begin(), shape.layers.end(),
                            [=](const LayerShape& layer) { return layer.has(family); });
    });
    return present;
}

std::vector<Unit> units_of(const ModelShape& shape, const char* measure) {
    std::vector<Unit> units;
    for (const std::int64_t row : pair_rows(shape)) {
        for (std::size_t set = 0; set < family_sets().size(); ++set) {
            if (has_any(shape.at(row), family_sets()[set]))
                units.push_back({measure, UnitOf::layer, row, static_cast<std::int64_t>(set)});
        }
    }
    return units;
}

/// Families that a unit writes: its set's, and those of a set that the layer has nothing of.
bool writes(const ModelShape& shape, const Unit& unit, WeightFamily family) {
    const auto& sets = family_sets();
    for (std::size_t set = 0; set < sets.size(); ++set) {
        if (std::find(sets[set].begin(), sets[set].end(), family) == sets[set].end()) continue;
        return static_cast<std::int64_t>(set) == unit.second || !has_any(shape.at(unit.first), sets[set]);
    }
    return false;
}

Needs variation_needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.together = family_sets();
    needs.previous_layer = true;
    return needs;
}

// --- the file --------------------------------------------------------------------------------------------------------

Schema axes(const ModelShape& shape, const char* group) {
    std::vector<std::string> names;
    for (const WeightFamily family : present_families(shape)) names.emplace_back(name_of(family));
    std::vector<std::int64_t> before = pair_rows(shape);
    for (std::int64_t& row : before) --row;
    Schema schema;
    const auto length = std::ssize(names);
    schema.scales = {
        {group, "family", length, std::move(names), "weights", {}},
        {"", "pair", std::ssize(before), {}, "decoder layer, with the one after it", shape.numbers(before)}};
    return schema;
}

constexpr const char* missing =
    "one of the layers lacks such weights or has them in another shape, they are zero, or the gauge does not compare "
    "them";

Schema declare_variation(const ModelShape& shape) {
    if (pair_rows(shape).empty()) return {};
    Schema schema = axes(shape, group_name);
    std::vector<std::string> names;
    for (const Gauge& gauge : gauges()) names.emplace_back(gauge.name);
    const auto length = std::ssize(names);
    schema.scales.push_back(
        {group_name, "gauge", length, std::move(names), "what was aligned away before comparing", {}});
    const std::vector<std::string> dims{"gauge", "family", "pair"};
    schema.variables = {{group_name, "residual", dims, ValueType::f64,
                         "Frobenius distance of consecutive layers' weights of unit norm, after the gauge (q, k, v, o: "
                         "mean over heads)",
                         "1", missing},
                        {group_name, "not_unique", dims, ValueType::f64,
                         "share of the matrices for which other elements of the gauge are as near, so that the "
                         "residual could be another",
                         "1", "there is no residual"}};
    return schema;
}

Schema declare_legacy(const ModelShape& shape) {
    if (pair_rows(shape).empty()) return {};
    Schema schema = axes(shape, legacy_name);
    schema.variables = {{legacy_name,
                         "residual",
                         {"family", "pair"},
                         ValueType::f64,
                         "Frobenius distance of consecutive layers' weights of unit norm, turned by R = U V^T (not the "
                         "nearest rotation), "
                         "as in earlier scripts",
                         "1",
                         "one of the layers lacks such weights, or R is open: 3 hidden < intermediate"}};
    return schema;
}

// --- the numbers -----------------------------------------------------------------------------------------------------

/// Norm weights are vectors: nothing but their scale is taken away.
void compare_norms(const LayerPair& pair, const Gauge& gauge, Backend& backend, FamilyResiduals& out) {
    for (const WeightFamily family :
         {WeightFamily::input_ln, WeightFamily::post_attn_ln, WeightFamily::q_norm, WeightFamily::k_norm}) {
        const bool folded = family == WeightFamily::input_ln || family == WeightFamily::post_attn_ln;
        const FamilyPair& both = pair.of(family);
        if (!both || (folded && gauge.folded)) continue;
        const TiedRows vector{{{{both.a, {0, both.a.stored.rows}}, {both.b, {0, both.b.stored.rows}}}}};
        out.of(family) = backend.matrices().turned_residuals({&vector, 1}, Turn::none)[0].residuals[0];
    }
}

FamilyResiduals residuals_of(const LayersOnHost& layers, const Gauge& gauge, std::int64_t set, Backend& backend) {
    const LayerPair& pair = gauge.folded ? layers.folded() : layers.stored();
    FamilyResiduals out;
    if (set == attention_set && pair.of(WeightFamily::q_proj) && pair.shape.heads > 0)
        gauge.attention(pair, backend, out);
    if (set != attention_set && pair.of(WeightFamily::gate_proj) && pair.shape.intermediate > 0)
        gauge.mlp(pair, backend, out);
    compare_norms(pair, gauge, backend, out);
    return out;
}

/// What a unit found, gauge by gauge, as slabs of every family it writes.
std::vector<Slab> slabs_of(const MeasureContext& context, const Unit& unit, const std::string& group,
                           const std::vector<FamilyResiduals>& found) {
    const auto present = present_families(context.shape);
    const auto rows = pair_rows(context.shape);
    const std::int64_t place = std::lower_bound(rows.begin(), rows.end(), unit.first) - rows.begin();
    std::vector<Slab> slabs;
    for (std::size_t f = 0; f < present.size(); ++f) {
        if (!writes(context.shape, unit, present[f])) continue;
        std::vector<double> values, open;
        for (const FamilyResiduals& of_gauge : found) {
            values.push_back(of_gauge.value(place_of(present[f])));
            open.push_back(std::isnan(values.back()) ? nan : of_gauge.not_unique(place_of(present[f])));
        }
        std::vector<std::int64_t> start{static_cast<std::int64_t>(f), place}, count{1, 1};
        const auto add = [&](const char* name, const std::vector<double>& numbers) {
            slabs.push_back(
                make_slab(context.schema, group + "/" + name, start, count, std::as_bytes(std::span(numbers))));
        };
        if (group == group_name) {
            start.insert(start.begin(), 0);
            count.insert(count.begin(), std::ssize(found));
            add("not_unique", open);
        }
        add("residual", values);
    }
    return slabs;
}

void look_at_pair(const LayerVisit& visit, const MeasureContext& context, const std::string& group,
                  std::span<const Gauge> some_gauges) {
    for (const Unit& unit : visit.units) {
        const LayersOnHost layers(context.shape, visit.row, visit.previous, visit.weights,
                                  family_sets()[static_cast<std::size_t>(unit.second)], context.backend);
        std::vector<FamilyResiduals> found;
        for (const Gauge& gauge : some_gauges)
            found.push_back(residuals_of(layers, gauge, unit.second, context.backend));
        context.emit({unit, slabs_of(context, unit, group, found)});
    }
}

// --- what it costs ---------------------------------------------------------------------------------------------------

// Of the pair that takes most: one set and one gauge at a time. What gauges keep in vectors malloc gives back late: of
// freed blocks it holds twice as much as the largest that it does not map by itself (32 MiB).
MemoryNeed memory_of(const ModelShape& shape, Backend& backend, std::span<const Gauge> some_gauges) {
    constexpr std::int64_t held_by_malloc = std::int64_t{64} << 20;
    MemoryNeed need;
    for (const std::int64_t row : pair_rows(shape)) {
        const PairShape pair = pair_shape(shape, row);
        for (std::size_t set = 0; set < family_sets().size(); ++set) {
            const bool attention = static_cast<std::int64_t>(set) == attention_set;
            std::int64_t working = backend.matrices().turning_bytes(1, 1, shape.hidden, Turn::none);
            for (const Gauge& gauge : some_gauges) {
                if (attention && pair.heads > 0) {
                    const std::int64_t bytes = gauge.attention_bytes(pair, backend);
                    working = std::max(working, bytes);
                    need.kept_host = std::max(need.kept_host, std::min(bytes, held_by_malloc));
                }
                if (!attention && pair.intermediate > 0) working = std::max(working, gauge.mlp_bytes(pair, backend));
            }
            need.layer_host = std::max(
                need.layer_host, working + LayersOnHost::bytes(shape, row, family_sets()[set], backend.on_device()));
        }
    }
    return need;
}

Work work_of(const ModelShape& shape, std::span<const Unit> units, std::span<const Gauge> some_gauges) {
    Work work;
    for (const Unit& unit : units) {
        const PairShape pair = pair_shape(shape, unit.first);
        const bool attention = unit.second == attention_set;
        if ((attention ? pair.heads : pair.intermediate) == 0) continue;
        for (const Gauge& gauge : some_gauges) {
            const auto flops = attention ? gauge.attention_flops : gauge.mlp_flops;
            if (flops != nullptr) work.fp64 += flops(pair);
        }
    }
    return work;
}

std::span<const Gauge> legacy_gauges() {
    static const std::array all{backward_gauge()};
    return all;
}

}  // namespace

Measure variation_measure() {
    Measure measure;
    measure.name = group_name;
    measure.summary = "what changes from a layer to the next: every family's distance, after each gauge";
    measure.needs = &variation_needs;
    measure.declare = &declare_variation;
    measure.units = [](const ModelShape& shape) { return units_of(shape, group_name); };
    measure.memory = [](const ModelShape& shape, Backend& backend) { return memory_of(shape, backend, gauges()); };
    measure.work = [](const ModelShape& shape, std::span<const Unit> units) { return work_of(shape, units, gauges()); };
    measure.start = [](const MeasureContext& context) {
        MeasureWork work;
        work.layer = [&context](const LayerVisit& visit) { look_at_pair(visit, context, group_name, gauges()); };
        return work;
    };
    return measure;
}

Measure legacy_variation_measure() {
    Measure measure;
    measure.name = legacy_name;
    measure.summary = "variation as earlier scripts defined it (with --legacy, beside variation)";
    measure.by_default = false;
    measure.needs = &variation_needs;
    measure.declare = &declare_legacy;
    measure.units = [](const ModelShape& shape) { return units_of(shape, legacy_name); };
    measure.memory = [](const ModelShape& shape, Backend& backend) {
        return memory_of(shape, backend, legacy_gauges());
    };
    measure.work = [](const ModelShape& shape, std::span<const Unit> units) {
        return work_of(shape, units, legacy_gauges());
    };
    measure.start = [](const MeasureContext& context) {
        MeasureWork work;
        work.layer = [&context](const LayerVisit& visit) {
            look_at_pair(visit, context, legacy_name, legacy_gauges());
        };
        return work;
    };
    return measure;
}

}  // namespace geom
