#include "measures/gram.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <string>

namespace geom {

namespace {

Needs gram_needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.pairs = HeadPairs::same_head;
    return needs;
}

Schema declare_gram(const ModelShape& shape) {
    const auto rows = shape.attention_rows();
    Schema schema;
    schema.scales = {layer_scale(shape, "gram", "layer", rows), layer_scale(shape, "gram", "layer_b", rows),
                     head_scale(shape)};
    schema.variables = {{"gram",
                         "gram",
                         {"layer", "layer_b", "head"},
                         ValueType::f64,
                         "Frobenius inner product of the QK operators W_K^T W_Q of two layers, same head",
                         "1",
                         ""}};
    return schema;
}

std::vector<Unit> gram_units(const ModelShape& shape) {
    std::vector<Unit> units;
    if (shape.attention_rows().empty()) return units;
    for (std::int64_t head = 0; head < shape.heads; ++head) units.push_back({"gram", UnitOf::head, head, 0});
    return units;
}

MemoryNeed gram_memory(const ModelShape& shape, Backend& backend) {
    const std::int64_t layers = std::ssize(shape.attention_rows());
    const HeadBlockFormat format = block_format(shape, backend);
    MemoryNeed need;
    need.pair = backend.head_products().scratch_bytes(format, layers, shape.group_size());
    return need;
}

// (1 + heads) L (L + 1) / 2 tiles of hd x hd x D multiply-adds: K's serve all heads of a group.
Work gram_work(const ModelShape& shape, std::span<const Unit> units) {
    const std::int64_t layers = std::ssize(shape.attention_rows()), hd = shape.head_dim();
    return {(1 + std::ssize(units)) * (layers * (layers + 1) / 2) * 2 * hd * hd * shape.hidden, 0};
}

// The heads of the visit are multiplied together; of those the units that are owed leave.
void gram_of_share(const HeadVisit& visit, const MeasureContext& context) {
    const std::int64_t layers = visit.blocks.layers(), elements = layers * layers;
    const KvGroupBlocks group = visit.blocks.group(visit.left, visit.heads);
    std::vector<double> gram(static_cast<std::size_t>(group.heads * elements));
    context.backend.head_products().tile_dots(group, visit.blocks.format(), gram);
    for (const Unit& unit : visit.units) {
        const auto at = std::lower_bound(visit.heads.begin(), visit.heads.end(), unit.first) - visit.heads.begin();
        const auto of_head =
            std::span(gram).subspan(static_cast<std::size_t>(at * elements), static_cast<std::size_t>(elements));
        Slab slab =
            make_slab(context.schema, "gram/gram", {0, 0, unit.first}, {layers, layers, 1}, std::as_bytes(of_head));
        context.emit({unit, {std::move(slab)}});
    }
}

MeasureWork start_gram(const MeasureContext& context) {
    MeasureWork work;
    work.pair = [&context](const HeadVisit& visit) { gram_of_share(visit, context); };
    return work;
}

}  // namespace

Measure gram_measure() {
    Measure measure;
    measure.name = "gram";
    measure.summary = "inner products of the QK operators of any two layers, and their cosines";
    measure.needs = &gram_needs;
    measure.declare = &declare_gram;
    measure.units = &gram_units;
    measure.memory = &gram_memory;
    measure.work = &gram_work;
    measure.start = &start_gram;
    return measure;
}

}  // namespace geom
