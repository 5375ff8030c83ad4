#include <algorithm>

#include "fakes.hpp"

namespace geom::fakes {

namespace {

Needs needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.experts = true;
    return needs;
}

std::vector<std::int64_t> rows_with_experts(const ModelShape& shape) {
    std::vector<std::int64_t> rows = shape.all_rows();
    std::erase_if(rows, [&](std::int64_t row) { return shape.at(row).experts == 0; });
    return rows;
}

std::vector<Unit> units(const ModelShape& shape) {
    std::vector<Unit> units;
    for (const std::int64_t row : rows_with_experts(shape)) {
        for (std::int64_t expert = 0; expert < shape.at(row).experts; ++expert)
            units.push_back({"fake_experts", UnitOf::expert, row, expert});
    }
    return units;
}

Schema declare(const ModelShape& shape) {
    const auto rows = rows_with_experts(shape);
    if (rows.empty()) return {};
    return {{layer_scale(shape, "fake_experts", "layer", rows),
             root_scale("expert", shape.at(rows.front()).experts, "expert of a mixture")},
            {{"fake_experts", "bits", {"layer", "expert"}, ValueType::f64, "sum of bits", "1", ""}}};
}

void look(const LayerVisit& visit, const MeasureContext& context) {
    const auto rows = rows_with_experts(context.shape);
    const std::int64_t place = std::lower_bound(rows.begin(), rows.end(), visit.row) - rows.begin();
    for (const Unit& unit : visit.units) {
        double sum = 0.0;
        for (const WeightFamily family : {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj})
            sum += bits_of(visit.weights.matrix(family, unit.second));
        context.emit({unit,
                      {make_slab(context.schema, "fake_experts/bits", {place, unit.second}, {1, 1},
                                 std::as_bytes(std::span(&sum, 1)))}});
    }
}

MeasureWork start(const MeasureContext& context) {
    return {[&context](const LayerVisit& visit) { look(visit, context); }, {}, {}};
}

}  // namespace

Measure experts_measure() {
    return {"fake_experts", "the experts of a mixture", true, needs, declare, units, nullptr, nullptr, start};
}

}  // namespace geom::fakes
