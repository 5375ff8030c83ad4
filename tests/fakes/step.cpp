#include <algorithm>

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

// Rows with a dense MLP whose predecessor has one too.
std::vector<std::int64_t> dense_rows(const ModelShape& shape) {
    std::vector<std::int64_t> rows;
    for (std::int64_t row = 1; row < shape.rows(); ++row) {
        if (shape.at(row).has(WeightFamily::up_proj) && shape.at(row - 1).has(WeightFamily::up_proj))
            rows.push_back(row);
    }
    return rows;
}

std::vector<Unit> units(const ModelShape& shape) {
    std::vector<Unit> units;
    for (std::int64_t row = 1; row < shape.rows(); ++row) units.push_back({"fake_step", UnitOf::layer, row, 0});
    for (const std::int64_t row : dense_rows(shape)) units.push_back({"fake_step", UnitOf::layer, row, 1});
    return units;
}

Schema declare(const ModelShape& shape) {
    const std::string group = "fake_step";
    const auto dense = dense_rows(shape);
    Schema schema;
    schema.scales = {{group, "pair", shape.rows() - 1, {}, "layer and its predecessor", {}}};
    schema.variables = {{group, "attention", {"pair"}, ValueType::f64, "difference of sums of bits", "1", ""}};
    if (dense.empty()) return schema;
    schema.scales.push_back(
        {group, "dense_pair", std::ssize(dense), {}, "layer and its predecessor, both dense", shape.numbers(dense)});
    schema.variables.push_back({group, "mlp", {"dense_pair"}, ValueType::f64, "difference of sums of bits", "1", ""});
    return schema;
}

void look(const LayerVisit& visit, const MeasureContext& context) {
    const Needs wanted = needs(context.shape);
    const auto dense = dense_rows(context.shape);
    for (const Unit& unit : visit.units) {
        double difference = 0.0;
        for (const WeightFamily family : wanted.together[static_cast<std::size_t>(unit.second)])
            difference += bits_of(visit.weights.matrix(family)) - bits_of(visit.previous->matrix(family));
        const bool mlp = unit.second == 1;
        const std::int64_t place =
            mlp ? std::lower_bound(dense.begin(), dense.end(), visit.row) - dense.begin() : visit.row - 1;
        context.emit({unit,
                      {make_slab(context.schema, mlp ? "fake_step/mlp" : "fake_step/attention", {place}, {1},
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
