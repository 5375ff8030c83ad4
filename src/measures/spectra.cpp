#include "measures/spectra.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "measures/spectral_figures.hpp"

namespace geom {

namespace {

constexpr std::array families{WeightFamily::q_proj,   WeightFamily::k_proj,    WeightFamily::v_proj,
                              WeightFamily::o_proj,   WeightFamily::gate_proj, WeightFamily::up_proj,
                              WeightFamily::down_proj};
constexpr std::array expert_families{WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj};
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

Needs spectra_needs(const ModelShape& /*shape*/) {
    Needs needs;
    for (const WeightFamily family : families) needs.together.push_back({family});
    needs.experts = needs.globals = true;
    return needs;
}

// --- what is where in the file ---------------------------------------------------------------------------------------

template <class Has>
std::vector<std::int64_t> rows_where(const ModelShape& shape, Has has) {
    std::vector<std::int64_t> rows = shape.all_rows();
    std::erase_if(rows, [&](std::int64_t row) { return !has(shape.at(row)); });
    return rows;
}

/// Rows of group spectra: those with a matrix of their own.
std::vector<std::int64_t> layer_rows(const ModelShape& shape) {
    return rows_where(shape, [](const LayerShape& layer) {
        return std::any_of(families.begin(), families.end(), [&](WeightFamily family) { return layer.has(family); });
    });
}

std::vector<std::int64_t> expert_rows(const ModelShape& shape) {
    return rows_where(shape, [](const LayerShape& layer) { return layer.experts > 0; });
}

/// Families of group spectra: those that any layer has.
std::vector<WeightFamily> layer_families(const ModelShape& shape) {
    std::vector<WeightFamily> present(families.begin(), families.end());
    std::erase_if(present, [&](WeightFamily family) {
        return std::none_of(shape.layers.begin(), shape.layers.end(),
                            [=](const LayerShape& layer) { return layer.has(family); });
    });
    return present;
}

template <class T>
std::int64_t place_of(const std::vector<T>& sorted, const T& what) {
    return std::lower_bound(sorted.begin(), sorted.end(), what) - sorted.begin();
}

MatrixSize size_of_weight(const WeightShape& weight) { return {weight.rows, weight.cols}; }

std::int64_t order_of(const WeightShape& weight) { return std::min(weight.rows, weight.cols); }

/// The most singular values that a family has in any layer.
std::int64_t longest(const ModelShape& shape, WeightFamily family) {
    std::int64_t most = 0;
    for (const LayerShape& layer : shape.layers) {
        if (const WeightShape* weight = layer.find(family)) most = std::max(most, order_of(*weight));
    }
    return most;
}

template <class Families>
Scale family_scale(const std::string& group, const Families& present) {
    std::vector<std::string> names;
    for (const WeightFamily family : present) names.emplace_back(name_of(family));
    const auto length = std::ssize(names);
    return {group, "family", length, std::move(names), "weight matrix", {}};
}

std::string values_name(WeightFamily family) { return "singular_values_" + std::string(name_of(family)); }

void declare_figures(Schema& schema, const std::string& group, const std::vector<std::string>& dims) {
    for (const SpectralFigure& figure : spectral_figures)
        schema.variables.push_back({group, figure.name, dims, ValueType::f64, figure.long_name, "1", figure.missing});
}

/// singular_values_FAMILY over its own scale index_FAMILY; `dims` come before it.
void declare_values(Schema& schema, const std::string& group, WeightFamily family, std::vector<std::string> dims,
                    std::int64_t length) {
    const std::string name(name_of(family)), index = "index_" + name;
    const char* missing = dims.empty() ? "" : "the layer has no such matrix, or a smaller one";
    schema.scales.push_back({group, index, length, {}, "singular value of " + name + ", largest first", {}});
    dims.push_back(index);
    schema.variables.push_back({group, values_name(family), std::move(dims), ValueType::f64,
                                "singular values of " + name + ", descending", "1", missing});
}

void declare_layers(Schema& schema, const ModelShape& shape) {
    const auto present = layer_families(shape);
    if (present.empty()) return;
    schema.scales.push_back(family_scale("spectra", present));
    schema.scales.push_back(layer_scale(shape, "spectra", "layer", layer_rows(shape)));
    for (const WeightFamily family : present)
        declare_values(schema, "spectra", family, {"layer"}, longest(shape, family));
    declare_figures(schema, "spectra", {"family", "layer"});
}

void declare_globals(Schema& schema, const ModelShape& shape) {
    if (shape.globals.empty()) return;
    std::vector<WeightFamily> present;
    for (const WeightShape& weight : shape.globals) present.push_back(weight.family);
    schema.scales.push_back(family_scale("spectra_global", present));
    for (const WeightShape& weight : shape.globals)
        declare_values(schema, "spectra_global", weight.family, {}, order_of(weight));
    declare_figures(schema, "spectra_global", {"family"});
}

void declare_experts(Schema& schema, const ModelShape& shape) {
    const auto rows = expert_rows(shape);
    if (rows.empty()) return;
    schema.scales.push_back(family_scale("experts", expert_families));
    schema.scales.push_back(layer_scale(shape, "experts", "layer", rows));
    schema.scales.push_back(root_scale("expert", shape.at(rows.front()).experts, "expert of a mixture"));
    declare_figures(schema, "experts", {"family", "layer", "expert"});
}

Schema declare_spectra(const ModelShape& shape) {
    Schema schema;
    declare_layers(schema, shape);
    declare_globals(schema, shape);
    declare_experts(schema, shape);
    return schema;
}

std::vector<Unit> spectra_units(const ModelShape& shape) {
    std::vector<Unit> units;
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::size_t i = 0; i < families.size(); ++i) {
            if (shape.at(row).has(families[i]))
                units.push_back({"spectra", UnitOf::layer, row, static_cast<std::int64_t>(i)});
        }
        for (std::int64_t expert = 0; expert < shape.at(row).experts; ++expert)
            units.push_back({"spectra", UnitOf::expert, row, expert});
    }
    for (std::int64_t i = 0; i < std::ssize(shape.globals); ++i) units.push_back({"spectra", UnitOf::global, i, 0});
    return units;
}

// --- what it costs ---------------------------------------------------------------------------------------------------

/// Shapes that a unit looks at.
std::vector<MatrixSize> sizes_of(const ModelShape& shape, const Unit& unit) {
    if (unit.of == UnitOf::global) return {size_of_weight(shape.globals[static_cast<std::size_t>(unit.first)])};
    const LayerShape& layer = shape.at(unit.first);
    if (unit.of == UnitOf::layer) return {size_of_weight(*layer.find(families[static_cast<std::size_t>(unit.second)]))};
    std::vector<MatrixSize> sizes;
    for (const WeightFamily family : expert_families) sizes.push_back(size_of_weight(*layer.find(family, unit.second)));
    return sizes;
}

/// Of the experts that are in memory at a time.
std::vector<MatrixSize> sizes_at_a_time(const ModelShape& shape, std::int64_t row) {
    std::vector<MatrixSize> sizes;
    for (std::int64_t expert = 0; expert < experts_at_a_time(shape.at(row)); ++expert) {
        for (const MatrixSize& size : sizes_of(shape, {"spectra", UnitOf::expert, row, expert})) sizes.push_back(size);
    }
    return sizes;
}

bool in_strips(const WeightShape& global) { return strip_rows(global) < global.rows; }

void enlarge(MemoryNeed& need, const MatricesScratch& scratch, std::int64_t values) {
    constexpr std::int64_t vectors = 6;  // values, squares, sums, logarithms
    need.layer = std::max(need.layer, scratch.backend);
    need.kept = std::max(need.kept, scratch.kept);
    need.layer_host = std::max(need.layer_host, scratch.host + 8 * vectors * values);
}

// A layer's matrices are looked at side by side, those of some experts likewise; a global is added up from strips.
MemoryNeed spectra_memory(const ModelShape& shape, Backend& backend) {
    MemoryNeed need;
    const auto side_by_side = [&](const std::vector<MatrixSize>& sizes) {
        std::int64_t values = 0;
        for (const MatrixSize& size : sizes) values += std::min(size.rows, size.cols);
        enlarge(need, backend.matrices().scratch(sizes), values);
    };
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        std::vector<MatrixSize> own;
        for (const WeightFamily family : families) {
            if (const WeightShape* weight = shape.at(row).find(family)) own.push_back(size_of_weight(*weight));
        }
        side_by_side(own);
        if (shape.at(row).experts > 0) side_by_side(sizes_at_a_time(shape, row));
    }
    for (const WeightShape& global : shape.globals) {
        if (in_strips(global)) {
            enlarge(need, backend.matrices().strip_scratch({strip_rows(global), global.cols}), global.cols);
        } else {
            side_by_side({size_of_weight(global)});
        }
    }
    return need;
}

// Products with the long side; the reduction to three diagonals and their eigenvalues take as long as 2.3 n^3 in
// products (measured: n = 1024 and 2048).
Work spectra_work(const ModelShape& shape, std::span<const Unit> units) {
    Work work;
    for (const Unit& unit : units) {
        for (const MatrixSize& size : sizes_of(shape, unit)) {
            const std::int64_t n = std::min(size.rows, size.cols), length = std::max(size.rows, size.cols);
            work.fp64 += n * n * length + n * n * n * 23 / 10;
        }
    }
    return work;
}

// --- singular values -------------------------------------------------------------------------------------------------

/// A spectrum and its figures.
struct Spectrum {
    std::vector<double> values;
    std::array<double, spectral_figure_count> figures{};
};

// The Gram matrix does where it leaves nothing of the effective rank, and digits of the smallest value.
bool too_doubtful(const SingularValues& spectrum) {
    const SpectralDoubt doubt = doubt_of(spectrum);
    return doubt.eff_rank > 1e-8 || doubt.least > 1e-3;
}

void redo_directly(std::span<const MatrixRef> matrices, std::vector<SingularValues>& spectra, Backend& backend) {
    std::vector<std::size_t> doubtful;
    std::vector<MatrixRef> again;
    for (std::size_t i = 0; i < spectra.size(); ++i) {
        if (!too_doubtful(spectra[i])) continue;
        doubtful.push_back(i);
        again.push_back(matrices[i]);
    }
    std::vector<SingularValues> direct = backend.matrices().direct_singular_values(again);
    for (std::size_t i = 0; i < direct.size(); ++i) spectra[doubtful[i]] = std::move(direct[i]);
}

std::vector<Spectrum> spectra_of(std::span<const MatrixRef> matrices, Backend& backend) {
    std::vector<SingularValues> spectra = backend.matrices().gram_singular_values(matrices);
    redo_directly(matrices, spectra, backend);
    std::vector<Spectrum> out(spectra.size());
    backend.workers().for_each(std::ssize(out), [&](std::int64_t i, int) {
        const auto at = static_cast<std::size_t>(i);
        out[at].figures = figures_of(spectra[at], {matrices[at].rows, matrices[at].cols});
        out[at].values = std::move(spectra[at].values);
    });
    return out;
}

// --- slabs -----------------------------------------------------------------------------------------------------------

/// Where the figures of a matrix are, in variables of any group.
struct Place {
    std::string group;
    std::vector<std::int64_t> start;
};

void add_figures(std::vector<Slab>& slabs, const Schema& schema, const Place& place,
                 std::span<const double, spectral_figure_count> figures) {
    for (std::size_t i = 0; i < figures.size(); ++i) {
        slabs.push_back(make_slab(schema, place.group + "/" + spectral_figures[i].name, place.start,
                                  std::vector<std::int64_t>(place.start.size(), 1),
                                  std::as_bytes(figures.subspan(i, 1))));
    }
}

/// Of one family in one layer; NaN where there is no matrix.
void add_layer_slabs(std::vector<Slab>& slabs, const MeasureContext& context, std::int64_t row, WeightFamily family,
                     Spectrum spectrum) {
    const ModelShape& shape = context.shape;
    const std::int64_t place = place_of(layer_rows(shape), row), length = longest(shape, family);
    spectrum.values.resize(static_cast<std::size_t>(length), nan);
    slabs.push_back(make_slab(context.schema, "spectra/" + values_name(family), {place, 0}, {1, length},
                              std::as_bytes(std::span(spectrum.values))));
    add_figures(slabs, context.schema, {"spectra", {place_of(layer_families(shape), family), place}}, spectrum.figures);
}

Spectrum no_spectrum() {
    Spectrum spectrum;
    spectrum.figures.fill(nan);
    return spectrum;
}

/// The first family that a layer has speaks for those that it lacks.
bool speaks_for_absent(const LayerShape& layer, WeightFamily family) {
    return family ==
           *std::find_if(families.begin(), families.end(), [&](WeightFamily other) { return layer.has(other); });
}

void emit_layer(const LayerVisit& visit, const MeasureContext& context) {
    const LayerShape& layer = context.shape.at(visit.row);
    std::vector<MatrixRef> matrices;
    for (const Unit& unit : visit.units)
        matrices.push_back(visit.weights.matrix(families[static_cast<std::size_t>(unit.second)]));
    std::vector<Spectrum> spectra = spectra_of(matrices, context.backend);
    for (std::size_t i = 0; i < spectra.size(); ++i) {
        const Unit& unit = visit.units[i];
        const WeightFamily family = families[static_cast<std::size_t>(unit.second)];
        std::vector<Slab> slabs;
        add_layer_slabs(slabs, context, visit.row, family, std::move(spectra[i]));
        for (const WeightFamily other : layer_families(context.shape)) {
            if (!layer.has(other) && speaks_for_absent(layer, family))
                add_layer_slabs(slabs, context, visit.row, other, no_spectrum());
        }
        context.emit({unit, std::move(slabs)});
    }
}

/// Of all families of an expert.
void emit_expert(const Unit& unit, std::span<const Spectrum> spectra, const MeasureContext& context) {
    const std::int64_t place = place_of(expert_rows(context.shape), unit.first);
    std::vector<Slab> slabs;
    for (std::size_t i = 0; i < spectral_figures.size(); ++i) {
        std::vector<double> of_families;
        for (const Spectrum& spectrum : spectra) of_families.push_back(spectrum.figures[i]);
        slabs.push_back(make_slab(context.schema, std::string("experts/") + spectral_figures[i].name,
                                  {0, place, unit.second}, {std::ssize(of_families), 1, 1},
                                  std::as_bytes(std::span(of_families))));
    }
    context.emit({unit, std::move(slabs)});
}

void emit_experts(const LayerVisit& visit, const MeasureContext& context) {
    std::vector<MatrixRef> matrices;
    for (const Unit& unit : visit.units) {
        for (const WeightFamily family : expert_families) matrices.push_back(visit.weights.matrix(family, unit.second));
    }
    const std::vector<Spectrum> spectra = spectra_of(matrices, context.backend);
    for (std::size_t i = 0; i < visit.units.size(); ++i) {
        const auto of_expert = std::span(spectra).subspan(i * expert_families.size(), expert_families.size());
        emit_expert(visit.units[i], of_expert, context);
    }
}

/// What has been added up of a matrix that comes in strips.
class Strips {
public:
    /// The spectrum, with the last strip.
    std::vector<Spectrum> add(const LayerVisit& visit, const WeightShape& global, Backend& backend) {
        const MatrixRef strip = visit.weights.rows(global.family, visit.rows);
        if (!in_strips(global)) return spectra_of({&strip, 1}, backend);
        const bool first = visit.rows.begin == 0;
        if (first) gram_ = backend.matrices().allocate(8 * global.cols * global.cols);
        backend.matrices().add_gram(strip, first, gram_.as<double>());
        if (!visit.complete) return {};
        SingularValues values = backend.matrices().singular_values_of_gram(gram_.as<double>(), size_of_weight(global));
        gram_ = Buffer();
        const auto figures = figures_of(values, size_of_weight(global));
        return {{std::move(values.values), figures}};
    }

private:
    Buffer gram_;
};

void emit_global(const LayerVisit& visit, const MeasureContext& context, Strips& strips) {
    const WeightShape& global = context.shape.globals[static_cast<std::size_t>(visit.index)];
    const std::vector<Spectrum> spectra = strips.add(visit, global, context.backend);
    if (spectra.empty()) return;
    for (const Unit& unit : visit.units) {
        std::vector<Slab> slabs;
        slabs.push_back(make_slab(context.schema, "spectra_global/" + values_name(global.family), {0},
                                  {order_of(global)}, std::as_bytes(std::span(spectra[0].values))));
        add_figures(slabs, context.schema, {"spectra_global", {visit.index}}, spectra[0].figures);
        context.emit({unit, std::move(slabs)});
    }
}

MeasureWork start_spectra(const MeasureContext& context) {
    MeasureWork work;
    work.layer = [&context, strips = std::make_shared<Strips>()](const LayerVisit& visit) {
        if (visit.of == UnitOf::layer) emit_layer(visit, context);
        if (visit.of == UnitOf::expert) emit_experts(visit, context);
        if (visit.of == UnitOf::global) emit_global(visit, context, *strips);
    };
    return work;
}

}  // namespace

Measure spectra_measure() {
    Measure measure;
    measure.name = "spectra";
    measure.summary = "singular values of every weight matrix: effective ranks, condition, power laws, outliers";
    measure.needs = &spectra_needs;
    measure.declare = &declare_spectra;
    measure.units = &spectra_units;
    measure.memory = &spectra_memory;
    measure.work = &spectra_work;
    measure.start = &start_spectra;
    return measure;
}

}  // namespace geom
