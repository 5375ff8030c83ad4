#include "measures/gram.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <string>

namespace geom {

namespace {

template <BlockForm form>
constexpr const char* measure_name = form == BlockForm::folded ? "gram_folded" : "gram";

template <BlockForm form>
Needs gram_needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.pairs = HeadPairs::same_head;
    needs.form = form;
    return needs;
}

template <BlockForm form>
Schema declare_gram(const ModelShape& shape) {
    constexpr bool folded = form == BlockForm::folded;
    const auto rows = shape.attention_rows();
    Schema schema;
    schema.scales = {layer_scale(shape, "gram", "layer", rows), layer_scale(shape, "gram", "layer_b", rows),
                     head_scale(shape)};
    schema.variables = {{"gram",
                         measure_name<form>,
                         {"layer", "layer_b", "head"},
                         ValueType::f64,
                         folded ? "the same of W_Q and W_K times diag(weights of the layer's input norm)"
                                : "Frobenius inner product of the QK operators W_K^T W_Q of two layers, same head",
                         "1",
                         folded ? "NaN for layers without an input norm" : ""}};
    return schema;
}

template <BlockForm form>
std::vector<Unit> gram_units(const ModelShape& shape) {
    std::vector<Unit> units;
    if (shape.attention_rows().empty()) return units;
    for (std::int64_t head = 0; head < shape.heads; ++head)
        units.push_back({measure_name<form>, UnitOf::head, head, 0});
    return units;
}

template <BlockForm form>
MemoryNeed gram_memory(const ModelShape& shape, Backend& backend) {
    const std::int64_t layers = std::ssize(shape.attention_rows());
    const HeadBlockFormat format = block_format(shape, backend, form);
    MemoryNeed need;
    need.pair = backend.head_products().scratch_bytes(format, layers, shape.group_size());
    return need;
}

// (1 + heads) L (L + 1) / 2 tiles of hd x hd x D multiply-adds: K's serve all heads of a group.
Work gram_work(const ModelShape& shape, std::span<const Unit> units) {
    const std::int64_t layers = std::ssize(shape.attention_rows()), hd = shape.head_dim();
    return {(1 + std::ssize(units)) * (layers * (layers + 1) / 2) * 2 * hd * hd * shape.hidden, 0};
}

// [L, L] of one head: rows and columns of layers that have nothing to fold.
void clear_layers_without_norm(const ModelShape& shape, std::span<double> gram) {
    const auto rows = shape.attention_rows();
    const std::size_t layers = rows.size();
    for (std::size_t l = 0; l < layers; ++l) {
        if (shape.at(rows[l]).has(WeightFamily::input_ln)) continue;
        for (std::size_t m = 0; m < layers; ++m)
            gram[l * layers + m] = gram[m * layers + l] = std::numeric_limits<double>::quiet_NaN();
    }
}

// The heads of the visit are multiplied together; of those the units that are owed leave.
template <BlockForm form>
void gram_of_share(const HeadVisit& visit, const MeasureContext& context) {
    const std::int64_t layers = visit.blocks.layers(), elements = layers * layers;
    const KvGroupBlocks group = visit.blocks.group(visit.left, visit.heads);
    std::vector<double> gram(static_cast<std::size_t>(group.heads * elements));
    context.backend.head_products().tile_dots(group, visit.blocks.format(visit.left), gram);
    for (const Unit& unit : visit.units) {
        const auto at = std::lower_bound(visit.heads.begin(), visit.heads.end(), unit.first) - visit.heads.begin();
        const auto of_head =
            std::span(gram).subspan(static_cast<std::size_t>(at * elements), static_cast<std::size_t>(elements));
        if (form == BlockForm::folded) clear_layers_without_norm(context.shape, of_head);
        Slab slab = make_slab(context.schema, std::string("gram/") + measure_name<form>, {0, 0, unit.first},
                              {layers, layers, 1}, std::as_bytes(of_head));
        context.emit({unit, {std::move(slab)}});
    }
}

template <BlockForm form>
MeasureWork start_gram(const MeasureContext& context) {
    MeasureWork work;
    work.pair = [&context](const HeadVisit& visit) { gram_of_share<form>(visit, context); };
    return work;
}

template <BlockForm form>
Measure gram_in() {
    Measure measure;
    measure.name = measure_name<form>;
    measure.needs = &gram_needs<form>;
    measure.declare = &declare_gram<form>;
    measure.units = &gram_units<form>;
    measure.memory = &gram_memory<form>;
    measure.work = &gram_work;
    measure.start = &start_gram<form>;
    return measure;
}

}  // namespace

Measure gram_measure() {
    Measure measure = gram_in<BlockForm::stored>();
    measure.summary = "inner products of the QK operators of any two layers, and their cosines";
    return measure;
}

Measure folded_gram_measure() {
    Measure measure = gram_in<BlockForm::folded>();
    measure.summary = "gram of weights times those of the input norm (with --folded, beside gram)";
    measure.by_default = false;
    return measure;
}

}  // namespace geom
