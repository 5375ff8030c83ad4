#include <memory>

#include "fakes.hpp"

namespace geom::fakes {

namespace {

Needs needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.globals = true;
    return needs;
}

std::vector<Unit> units(const ModelShape& shape) {
    std::vector<Unit> units;
    for (std::int64_t i = 0; i < std::ssize(shape.globals); ++i)
        units.push_back({"fake_globals", UnitOf::global, i, 0});
    return units;
}

Schema declare(const ModelShape& shape) {
    std::vector<std::string> families;
    for (const WeightShape& weight : shape.globals) families.emplace_back(name_of(weight.family));
    return {{{"fake_globals", "family", std::ssize(families), families, "weights of no layer", {}}},
            {{"fake_globals", "bits", {"family"}, ValueType::f64, "sum of bits", "1", ""}}};
}

MeasureWork start(const MeasureContext& context) {
    const auto sums = std::make_shared<std::vector<double>>(context.shape.globals.size(), 0.0);
    MeasureWork work;
    work.layer = [&context, sums](const LayerVisit& visit) {
        const WeightFamily family = context.shape.globals[static_cast<std::size_t>(visit.index)].family;
        double& sum = (*sums)[static_cast<std::size_t>(visit.index)];
        sum += bits_of(visit.weights.rows(family, visit.rows));
        if (!visit.complete) return;
        for (const Unit& unit : visit.units)
            context.emit({unit,
                          {make_slab(context.schema, "fake_globals/bits", {visit.index}, {1},
                                     std::as_bytes(std::span(&sum, 1)))}});
    };
    return work;
}

}  // namespace

Measure globals_measure() {
    return {"fake_globals", "embed_tokens and lm_head", true, needs, declare, units, nullptr, nullptr, start};
}

}  // namespace geom::fakes
