#include "measures/residual.hpp"

#include <algorithm>
#include <memory>

#include "measures/hidden_states.hpp"
#include "measures/residual_forward.hpp"
#include "measures/residual_slabs.hpp"

namespace geom {

namespace {

// --- streams from a file ---------------------------------------------------------------------------------------------

// Which rank computes what is the plan's to say, and it deals out weights: a layer comes with the smallest it has.
const std::vector<WeightFamily> smallest{WeightFamily::input_ln, WeightFamily::post_attn_ln, WeightFamily::q_norm,
                                         WeightFamily::k_norm};

/// Units are done as many at a time as there are threads.
class StepsFromFile {
public:
    explicit StepsFromFile(const MeasureContext& context)
        : context_(context), file_(context.shape.settings.residual.hidden_states) {}

    void look(std::span<const Unit> units) {
        units_.insert(units_.end(), units.begin(), units.end());
        if (std::ssize(units_) >= context_.backend.workers().size()) emit();
    }

    void emit() {
        const ModelShape& shape = context_.shape;
        const std::int64_t first = shape.at(0).number;
        emit_units(
            units_, [&](std::int64_t edge) { return file_.edge(first + edge, shape.settings.residual.tokens); },
            context_);
        units_.clear();
    }

private:
    const MeasureContext& context_;
    HiddenStates file_;
    std::vector<Unit> units_;
};

MeasureWork start_from_file(const MeasureContext& context) {
    auto steps = std::make_shared<StepsFromFile>(context);
    MeasureWork work;
    work.layer = [steps](const LayerVisit& visit) { steps->look(visit.units); };
    work.finish = [steps] { steps->emit(); };
    return work;
}

MeasureWork start_forward(const MeasureContext& context) {
    auto forward = std::make_shared<ResidualForward>(context);
    MeasureWork work;
    work.layer = [forward](const LayerVisit& visit) { forward->look(visit); };
    work.settle = [forward] { return forward->settle(); };
    work.strips = [forward](const StripsVisit& visit) { forward->finish(visit); };
    return work;
}

// --- what is declared ------------------------------------------------------------------------------------------------

Needs residual_needs(const ModelShape& shape) {
    Needs needs;
    if (shape.settings.residual.forward()) {
        needs = forward_needs(shape);
    } else {
        needs.together = {smallest};
    }
    if (!has_legacy(shape)) return needs;
    needs.together.push_back(needs.together.front());
    needs.besides.push_back({legacy_unit(shape), {-1, WeightFamily::final_norm, -1, {0, 1}}});
    return needs;
}

std::vector<Unit> residual_units(const ModelShape& shape) {
    std::vector<Unit> units = layer_units("residual", shape.all_rows());
    if (has_legacy(shape)) units.push_back(legacy_unit(shape));
    if (predicts_next(shape)) units.push_back({"residual", UnitOf::global, predicting_global(shape), 0});
    return units;
}

MemoryNeed residual_memory(const ModelShape& shape, Backend& backend) {
    const MatricesScratch scratch = emit_scratch(shape, backend);
    MemoryNeed need;
    need.layer = scratch.backend;
    need.layer_host = scratch.host;
    if (shape.settings.residual.forward()) add_forward_memory(need, shape, backend);
    return need;
}

// The products with the long side, and a reduction to three diagonals that is half made of them (as of spectra).
Work residual_work(const ModelShape& shape, std::span<const Unit> units) {
    const std::int64_t tokens = shape.settings.residual.counted(), n = step_components(shape);
    Work work;
    for (const Unit& unit : units) {
        if (shape.settings.residual.forward() && unit.second == 0) work += forward_work(shape, unit);
        if (unit.of == UnitOf::layer) work.fp64 += n * n * std::max(tokens, shape.hidden) + n * n * n * 23 / 10;
    }
    return work;
}

MeasureWork start_residual(const MeasureContext& context) {
    return context.shape.settings.residual.forward() ? start_forward(context) : start_from_file(context);
}

}  // namespace

Measure residual_measure() {
    Measure measure;
    measure.name = "residual";
    measure.summary = "what each layer adds to the residual stream of a text: norms, spectrum, directions, phases";
    measure.needs = residual_needs;
    measure.declare = declare_residual;
    measure.units = residual_units;
    measure.memory = residual_memory;
    measure.work = residual_work;
    measure.start = start_residual;
    return measure;
}

}  // namespace geom
