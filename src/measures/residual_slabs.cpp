#include "measures/residual_slabs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>

namespace geom {

namespace {

const std::string group = "residual", legacy = "legacy/residual";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Phases that layers of this run belong to, in their order; indices into ResidualSettings::phases.
std::vector<std::int32_t> present_phases(const ModelShape& shape) {
    std::vector<std::int32_t> present;
    for (const LayerShape& layer : shape.layers) present.push_back(shape.settings.residual.phase_of[at(layer.number)]);
    std::sort(present.begin(), present.end());
    present.erase(std::unique(present.begin(), present.end()), present.end());
    return present;
}

Scale phase_scale(const ModelShape& shape) {
    std::vector<std::string> names;
    for (const std::int32_t phase : present_phases(shape)) names.push_back(shape.settings.residual.phases[at(phase)]);
    const auto length = std::ssize(names);
    return {group, "phase", length, std::move(names), "run of layers that are looked at together", {}};
}

// Of the root where heads has as many directions, else the group's own.
Scale direction_scale(const ModelShape& shape) {
    const std::int64_t k = step_directions(shape);
    Scale scale = root_scale("direction", k, "singular direction, largest first");
    if (k != std::min(shape.settings.top_k, shape.head_dim())) scale.group = group;
    return scale;
}

Scale edge_scale(const ModelShape& shape) {
    Scale scale =
        root_scale("layer_edge", shape.rows() + 1, "stream before this decoder layer; the last one after all");
    for (std::int64_t edge = 0; edge <= shape.rows(); ++edge)
        scale.values.push_back(static_cast<std::int32_t>(shape.at(0).number + edge));
    return scale;
}

void declare_legacy(Schema& schema, const ModelShape& shape) {
    schema.scales.push_back(layer_scale(shape, legacy, "layer", {shape.rows() - 1}));
    const auto add = [&](const char* name, std::vector<std::string> dims, ValueType type, const char* long_name) {
        schema.variables.push_back({legacy, name, std::move(dims), type, long_name, "1", ""});
    };
    add("frob", {"layer"}, ValueType::f64, "Frobenius norm of d = norm(h') - h, norm the model's final one");
    add("spectrum", {"layer", "component"}, ValueType::f32, "singular values of d, descending");
    add("eff_rank_energy", {"layer"}, ValueType::f64, "effective rank of d's energy");
    add("top1_frac", {"layer"}, ValueType::f32, "share of the largest singular value in sum s^2");
}

double figure(const LayerStep& step, std::string_view name) {
    const auto found = std::find_if(step_figures.begin(), step_figures.end(),
                                    [name](const StepFigure& one) { return name == one.name; });
    return step.figures[static_cast<std::size_t>(found - step_figures.begin())];
}

template <class T>
Slab row_slab(const Schema& schema, const std::string& path, std::int64_t row, std::vector<std::int64_t> count,
              const std::vector<T>& numbers) {
    std::vector<std::int64_t> start(count.size() + 1, 0);
    start[0] = row;
    count.insert(count.begin(), 1);
    return make_slab(schema, path, std::move(start), std::move(count), std::as_bytes(std::span(numbers)));
}

std::vector<float> narrowed(std::span<const double> numbers) { return {numbers.begin(), numbers.end()}; }

// --- the stream after the final norm, for legacy ---------------------------------------------------------------------

std::vector<double> after_final_norm(std::span<const double> stream, const MeasureContext& context) {
    const Range only{0, 1};
    const StoredRows weight = context.read_rows(WeightFamily::final_norm, {&only, 1});
    const std::int64_t hidden = context.shape.hidden;
    std::vector<double> out(stream.size());
    for (std::int64_t t = 0; t * hidden < std::ssize(stream); ++t) {
        const double* h = stream.data() + t * hidden;
        double square = 0;
        for (std::int64_t i = 0; i < hidden; ++i) square += h[i] * h[i];
        const double scale = 1.0 / std::sqrt(square / static_cast<double>(hidden) + context.shape.forward.norm_eps);
        for (std::int64_t i = 0; i < hidden; ++i) out[at(t * hidden + i)] = h[i] * scale * number_of(weight, i);
    }
    return out;
}

// --- rows ------------------------------------------------------------------------------------------------------------

class UnitsToEmit {
public:
    UnitsToEmit(std::span<const Unit> units, const StreamAt& stream, const MeasureContext& context)
        : units_(units), context_(context) {
        for (const Unit& unit : units) {
            for (const std::int64_t edge : {unit.first, unit.first + 1}) {
                if (!streams_.contains(edge)) streams_[edge] = stream(edge);
            }
            if (is_legacy(unit)) normed_ = after_final_norm(streams_.at(unit.first + 1), context);
        }
    }

    void emit() {
        std::vector<StepInput> inputs;
        for (const Unit& unit : units_) {
            const std::vector<double>& after = is_legacy(unit) ? normed_ : streams_.at(unit.first + 1);
            inputs.push_back({counted(streams_.at(unit.first)), counted(after)});
        }
        const std::vector<LayerStep> steps =
            steps_of(inputs, context_.shape.hidden, step_directions(context_.shape), context_.backend);
        for (std::size_t i = 0; i < steps.size(); ++i)
            context_.emit(
                {units_[i], is_legacy(units_[i]) ? legacy_slabs(steps[i]) : slabs_of(units_[i].first, steps[i])});
    }

private:
    std::span<const double> counted(const std::vector<double>& stream) const {
        const ResidualSettings& settings = context_.shape.settings.residual;
        return std::span(stream).subspan(at((settings.tokens - settings.counted()) * context_.shape.hidden));
    }

    std::vector<Slab> slabs_of(std::int64_t row, const LayerStep& step) const {
        const ModelShape& shape = context_.shape;
        const ResidualSettings& settings = shape.settings.residual;
        const Schema& schema = context_.schema;
        std::vector<Slab> slabs;
        for (std::size_t i = 0; i < step_figures.size(); ++i)
            slabs.push_back(
                row_slab(schema, group + "/" + step_figures[i].name, row, {}, std::vector<double>{step.figures[i]}));
        slabs.push_back(row_slab(schema, group + "/spectrum", row, {std::ssize(step.spectrum)}, step.spectrum));
        const std::vector<std::int64_t> directions{step_directions(shape), shape.hidden};
        slabs.push_back(row_slab(schema, group + "/top_dirs", row, directions, step.top_dirs));
        slabs.push_back(row_slab(schema, group + "/top_dirs_rest", row, directions, step.top_dirs_rest));
        const auto present = present_phases(shape);
        const std::int32_t phase = settings.phase_of[at(shape.at(row).number)];
        const auto place = std::lower_bound(present.begin(), present.end(), phase) - present.begin();
        slabs.push_back(row_slab(schema, group + "/layer_phase", row, {},
                                 std::vector<std::int32_t>{static_cast<std::int32_t>(place)}));
        if (settings.save_hidden) {
            if (row == 0) slabs.push_back(edge_slab(0));
            slabs.push_back(edge_slab(row + 1));
        }
        if (settings.forward() && row == 0)
            slabs.push_back(whole_slab(schema, group + "/token_ids", settings.token_ids));
        if (!predicts_next(shape) && row + 1 == shape.rows())
            slabs.push_back(cross_entropy_slab(std::numeric_limits<double>::quiet_NaN(), schema));
        return slabs;
    }

    Slab edge_slab(std::int64_t edge) const {
        return row_slab(context_.schema, group + "/hidden_states", edge,
                        {context_.shape.settings.residual.tokens, context_.shape.hidden}, narrowed(streams_.at(edge)));
    }

    std::vector<Slab> legacy_slabs(const LayerStep& step) const {
        const Schema& schema = context_.schema;
        return {
            row_slab(schema, legacy + "/frob", 0, {}, std::vector<double>{figure(step, "frob")}),
            row_slab(schema, legacy + "/spectrum", 0, {std::ssize(step.spectrum)}, narrowed(step.spectrum)),
            row_slab(schema, legacy + "/eff_rank_energy", 0, {}, std::vector<double>{figure(step, "eff_rank_energy")}),
            row_slab(schema, legacy + "/top1_frac", 0, {},
                     std::vector<float>{static_cast<float>(figure(step, "top1_frac"))})};
    }

    static bool is_legacy(const Unit& unit) { return unit.second == 1; }

    std::span<const Unit> units_;
    const MeasureContext& context_;
    std::map<std::int64_t, std::vector<double>> streams_;  // by edge
    std::vector<double> normed_;
};

}  // namespace

std::int64_t step_components(const ModelShape& shape) {
    return std::min(shape.settings.residual.counted(), shape.hidden);
}

std::int64_t step_directions(const ModelShape& shape) {
    return std::min(std::max<std::int64_t>(1, shape.settings.top_k), step_components(shape));
}

bool predicts_next(const ModelShape& shape) {
    const ResidualSettings& settings = shape.settings.residual;
    return settings.forward() && settings.tokens > 1 && shape.rows() == shape.model_layers;
}

bool has_legacy(const ModelShape& shape) {
    return shape.settings.residual.legacy && shape.at(shape.rows() - 1).number == shape.model_layers - 1;
}

Schema declare_residual(const ModelShape& shape) {
    const ResidualSettings& settings = shape.settings.residual;
    Schema schema;
    schema.scales = {layer_scale(shape, group, "layer", shape.all_rows()),
                     root_scale("component", step_components(shape), "singular value of a step, largest first"),
                     direction_scale(shape), root_scale("hidden", shape.hidden, "coordinate of the residual stream"),
                     phase_scale(shape)};
    const auto add = [&](const char* name, std::vector<std::string> dims, ValueType type, const char* long_name,
                         const char* missing) {
        schema.variables.push_back({group, name, std::move(dims), type, long_name, "1", missing});
    };
    for (const StepFigure& one : step_figures) add(one.name, {"layer"}, ValueType::f64, one.long_name, one.missing);
    add("spectrum", {"layer", "component"}, ValueType::f64, "singular values of d, descending", "");
    add("top_dirs", {"layer", "direction", "hidden"}, ValueType::f32, "leading right singular vectors of d",
        "the singular value is zero");
    add("top_dirs_rest", {"layer", "direction", "hidden"}, ValueType::f32,
        "what rounding to f32 left of top_dirs: their sum has twice the digits", "the singular value is zero");
    add("layer_phase", {"layer"}, ValueType::i32, "phase of the layer: index into phase", "");
    add("cross_entropy", {}, ValueType::f64, "mean of -ln p(next token), nats, all tokens",
        "no next token is predicted: streams from a file, a text of one token, or layers left out");
    if (settings.forward() || settings.save_hidden)
        schema.scales.push_back(root_scale("token", settings.tokens, "token of the text"));
    if (settings.forward()) add("token_ids", {"token"}, ValueType::i32, "ids of the text's tokens", "");
    if (settings.save_hidden) {
        schema.scales.push_back(edge_scale(shape));
        add("hidden_states", {"layer_edge", "token", "hidden"}, ValueType::f32,
            "the residual stream; the last edge before the final norm", "");
    }
    if (has_legacy(shape)) declare_legacy(schema, shape);
    return schema;
}

Unit step_unit(std::int64_t row) { return {group, UnitOf::layer, row, 0}; }

Unit legacy_unit(const ModelShape& shape) { return {group, UnitOf::layer, shape.rows() - 1, 1}; }

void emit_units(std::span<const Unit> units, const StreamAt& stream, const MeasureContext& context) {
    if (!units.empty()) UnitsToEmit(units, stream, context).emit();
}

MatricesScratch emit_scratch(const ModelShape& shape, Backend& backend) {
    const ResidualSettings& settings = shape.settings.residual;
    MatricesScratch scratch = step_scratch(settings.counted(), shape.hidden, step_directions(shape), backend);
    const std::int64_t stream = settings.tokens * shape.hidden * size_of(DType::f64);
    scratch.host += 2 * backend.workers().size() * stream;  // on both sides of every row
    if (has_legacy(shape)) scratch.host += 3 * stream;      // beside its row: another stream, and its step
    return scratch;
}

Slab cross_entropy_slab(double mean, const Schema& schema) {
    return whole_slab(schema, group + "/cross_entropy", std::vector<double>{mean});
}

}  // namespace geom
