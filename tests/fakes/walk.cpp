#include <cmath>
#include <cstring>
#include <memory>

#include "fakes.hpp"

namespace geom::fakes {

namespace {

constexpr std::int64_t chunks = 3;

Needs needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.together = {{WeightFamily::q_proj, WeightFamily::o_proj}};
    needs.rising = {chunks, sizeof(double)};
    return needs;
}

std::vector<Unit> units(const ModelShape& shape) { return layer_units("fake_walk", shape.all_rows()); }

Schema declare(const ModelShape& shape) {
    return {{layer_scale(shape, "fake_walk", "layer", shape.all_rows())},
            {{"fake_walk", "left", {"layer"}, ValueType::f64, "what the chunks left behind, together", "1", ""}}};
}

// Chunk c enters the first layer with c + 1; a layer leaves 3 x + (its bits modulo 1000003), modulo 2^31 - 1.
double through(double x, double bits) { return std::fmod(3.0 * x + std::fmod(bits, 1000003.0), 2147483647.0); }

MeasureWork start(const MeasureContext& context) {
    const auto left = std::make_shared<std::vector<double>>(static_cast<std::size_t>(context.shape.rows()), 0.0);
    MeasureWork work;
    work.layer = [&context, left](const LayerVisit& visit) {
        double x = static_cast<double>(visit.chunk + 1);
        if (visit.row > 0) std::memcpy(&x, visit.state.data(), sizeof x);
        x = through(x, bits_of(visit.weights.matrix(WeightFamily::q_proj)) +
                           bits_of(visit.weights.matrix(WeightFamily::o_proj)));
        std::memcpy(visit.state.data(), &x, sizeof x);
        double& sum = (*left)[static_cast<std::size_t>(visit.row)];
        sum += x;
        if (!visit.complete) return;
        for (const Unit& unit : visit.units)
            context.emit(
                {unit,
                 {make_slab(context.schema, "fake_walk/left", {visit.row}, {1}, std::as_bytes(std::span(&sum, 1)))}});
    };
    return work;
}

}  // namespace

Measure walk_measure() {
    return {"fake_walk", "layers in rising order", true, needs, declare, units, nullptr, nullptr, start};
}

}  // namespace geom::fakes
