#include "fakes.hpp"

namespace geom::fakes {

namespace {

Needs needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.pairs = HeadPairs::all_heads;
    return needs;
}

std::vector<Unit> units(const ModelShape& shape) {
    std::vector<Unit> units;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
        for (std::int64_t group = head / shape.group_size(); group < shape.groups(); ++group)
            units.push_back({"fake_pairs", UnitOf::pair, head, group});
    }
    return units;
}

Schema declare(const ModelShape& shape) {
    const auto rows = shape.attention_rows();
    return {{layer_scale(shape, "fake_pairs", "layer", rows), layer_scale(shape, "fake_pairs", "layer_b", rows),
             head_scale(shape), root_scale("head_b", shape.heads, "query head, second of a pair")},
            {{"fake_pairs",
              "bits",
              {"layer", "head", "layer_b", "head_b"},
              ValueType::f64,
              "key of the first, plus query of the first, minus query of the second",
              "1",
              ""}}};
}

// [layers] of one head of a share.
std::vector<double> queries(const HeadVisit& visit, std::int64_t share, std::int64_t head) {
    const std::int64_t only[] = {head};
    const KvGroupBlocks blocks = visit.blocks.group(share, only);
    std::vector<double> bits;
    const HeadBlockFormat& format = visit.blocks.format(share);
    for (std::int64_t l = 0; l < blocks.layers; ++l) bits.push_back(bits_of(blocks.q + l * format.bytes, format));
    return bits;
}

std::vector<double> keys(const HeadVisit& visit, std::int64_t share) {
    const KvGroupBlocks blocks = visit.blocks.group(share);
    std::vector<double> bits;
    const HeadBlockFormat& format = visit.blocks.format(share);
    for (std::int64_t l = 0; l < blocks.layers; ++l) bits.push_back(bits_of(blocks.k + l * format.bytes, format));
    return bits;
}

// Both triangles: a block below the diagonal of groups is the transpose of one above it.
void look(const HeadVisit& visit, const MeasureContext& context) {
    const std::int64_t layers = visit.blocks.layers(), size = context.shape.group_size();
    for (const Unit& unit : visit.units) {
        const auto q = queries(visit, visit.left, unit.first), k = keys(visit, visit.left);
        const auto other_k = keys(visit, visit.right);
        std::vector<Slab> slabs;
        for (std::int64_t other = unit.second * size; other < (unit.second + 1) * size; ++other) {
            const auto other_q = queries(visit, visit.right, other);
            std::vector<double> upper, lower;
            for (std::size_t l = 0; l < q.size(); ++l) {
                for (std::size_t m = 0; m < q.size(); ++m) {
                    upper.push_back(k[l] + q[l] - other_q[m]);
                    lower.push_back(other_k[l] + other_q[l] - q[m]);
                }
            }
            const std::vector<std::int64_t> count{layers, 1, layers, 1};
            slabs.push_back(make_slab(context.schema, "fake_pairs/bits", {0, unit.first, 0, other}, count,
                                      std::as_bytes(std::span(upper))));
            if (unit.first / size != unit.second)
                slabs.push_back(make_slab(context.schema, "fake_pairs/bits", {0, other, 0, unit.first}, count,
                                          std::as_bytes(std::span(lower))));
        }
        context.emit({unit, std::move(slabs)});
    }
}

MeasureWork start(const MeasureContext& context) {
    return {{}, [&context](const HeadVisit& visit) { look(visit, context); }, {}};
}

}  // namespace

Measure pairs_measure() {
    return {"fake_pairs", "every head against every head", true, needs, declare, units, nullptr, nullptr, start};
}

}  // namespace geom::fakes
