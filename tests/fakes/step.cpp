#include "fakes.hpp"

namespace geom::fakes {

namespace {

using Families = std::vector<WeightFamily>;

Needs needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.together = {Families{WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj, WeightFamily::o_proj},
                      Families{WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj}};
    needs.previous_layer = true;
    return needs;
}

// Of rows that have these weights, and whose predecessor has them.
std::vector<Unit> units(const ModelShape& shape) {
    std::vector<Unit> units;
    for (std::int64_t row = 1; row < shape.rows(); ++row) {
        units.push_back({"fake_step", UnitOf::layer, row, 0});
        const bool dense = shape.at(row).has(WeightFamily::up_proj) && shape.at(row - 1).has(WeightFamily::up_proj);
        if (dense) units.push_back({"fake_step", UnitOf::layer, row, 1});
    }
    return units;
}

bool has_mlp(const ModelShape& shape) {
    const auto all = units(shape);
    return std::ssize(all) == 2 * (shape.rows() - 1) && shape.rows() > 1;
}

Schema declare(const ModelShape& shape) {
    const std::string group = "fake_step";
    Schema schema;
    schema.scales = {{group, "pair", shape.rows() - 1, {}, "layer and its predecessor", {}}};
    schema.variables = {{group, "attention", {"pair"}, ValueType::f64, "difference of sums of bits", "1", ""}};
    if (has_mlp(shape))
        schema.variables.push_back({group, "mlp", {"pair"}, ValueType::f64, "difference of sums of bits", "1", ""});
    return schema;
}

void look(const LayerVisit& visit, const MeasureContext& context) {
    for (const Unit& unit : visit.units) {
        double difference = 0.0;
        for (const WeightFamily family : needs(context.shape).together[static_cast<std::size_t>(unit.second)])
            difference += bits_of(visit.weights.matrix(family)) - bits_of(visit.previous->matrix(family));
        const std::string path = unit.second == 0 ? "fake_step/attention" : "fake_step/mlp";
        context.emit({unit, {make_slab(context.schema, path, {visit.row - 1}, {1},
                                       std::as_bytes(std::span(&difference, 1)))}});
    }
}

MeasureWork start(const MeasureContext& context) {
    return {[&context](const LayerVisit& visit) { look(visit, context); }, {}, {}};
}

}  // namespace

Measure step_measure() {
    return {"fake_step", "a layer beside the one before it", true, needs, declare, units, nullptr, nullptr, start};
}

}  // namespace geom::fakes
