#include "measures/match.hpp"

#include <cmath>
#include <span>
#include <string>
#include <vector>

namespace geom {

namespace {

Needs match_needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.pairs = HeadPairs::all_heads;
    return needs;
}

Schema declare_match(const ModelShape& shape) {
    const auto rows = shape.attention_rows();
    Schema schema;
    schema.scales = {layer_scale(shape, "match", "layer", rows), layer_scale(shape, "match", "layer_b", rows),
                     head_scale(shape), root_scale("head_b", shape.heads, "query head, second of a pair")};
    schema.variables = {{"match",
                         "cross_gram",
                         {"layer", "head", "layer_b", "head_b"},
                         ValueType::f32,
                         "Frobenius inner product of the QK operators W_K^T W_Q of any two heads of any two layers, "
                         "over 2^(exponent of the one + exponent of the other)",
                         "1",
                         ""},
                        {"match",
                         "exponent",
                         {"layer", "head"},
                         ValueType::i32,
                         "power of two that the operator is taken without in cross_gram, whose type has not its range; "
                         "0 where weights have ordinary sizes",
                         "1",
                         ""}};
    return schema;
}

// A query head of all layers with the heads of a group that is not before its own.
std::vector<Unit> match_units(const ModelShape& shape) {
    std::vector<Unit> units;
    if (shape.attention_rows().empty()) return units;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
        for (std::int64_t group = head / shape.group_size(); group < shape.groups(); ++group)
            units.push_back({"match", UnitOf::pair, head, group});
    }
    return units;
}

// A head's numbers against a group's, in f64 and as two slabs of f32.
std::int64_t unit_bytes(const ModelShape& shape) {
    const std::int64_t layers = std::ssize(shape.attention_rows());
    return shape.group_size() * layers * layers * (8 + 2 * 4);
}

MemoryNeed match_memory(const ModelShape& shape, Backend& backend) {
    const std::int64_t layers = std::ssize(shape.attention_rows()), size = shape.group_size();
    MemoryNeed need;
    need.pair = backend.head_products().cross_scratch_bytes(block_format(shape, backend), layers, size, size);
    need.pair_host = size * unit_bytes(shape);
    return need;
}

// Of one left group with one right group: K's tiles once, then a product of Q for every pair of heads; of a group with
// itself only pairs of which the right head is not before the left one.
Work match_work(const ModelShape& shape, std::span<const Unit> units) {
    const std::int64_t layers = std::ssize(shape.attention_rows()), size = shape.group_size(), hd = shape.head_dim();
    std::int64_t tiles = layers * layers;
    for (const Unit& unit : units) {
        const bool within = unit.first / size == unit.second;
        const std::int64_t pairs = within ? size - unit.first % size - 1 : size;
        tiles += pairs * layers * layers + (within ? layers * (layers + 1) / 2 : 0);
    }
    return {tiles * 2 * hd * hd * shape.hidden, 0};
}

/// A head's blocks in a group.
struct HeadOfGroup {
    const KvGroupBlocks& group;
    std::int64_t place = 0;   ///< among the group's heads
    std::int64_t number = 0;  ///< of the model
};

// Numbers of a left head against those of a group, as the file keeps them: its row, and the column that mirrors it.
class UnitSlabs {
public:
    UnitSlabs(const Schema& schema, std::int64_t layers) : schema_(schema), layers_(layers) {}

    // dots[l, l'] of two heads.
    void add(const HeadOfGroup& left, const HeadOfGroup& right, std::span<const double> dots) {
        put(left, right, dots, false);
        if (left.number != right.number) put(right, left, dots, true);
    }
    void add_exponents(const HeadOfGroup& head) {
        std::vector<std::int32_t> exponents;
        for (std::int64_t l = 0; l < layers_; ++l) exponents.push_back(head.group.exponent(head.place, l));
        slabs_.push_back(
            make_slab(schema_, "match/exponent", {0, head.number}, {layers_, 1}, std::as_bytes(std::span(exponents))));
    }
    std::vector<Slab> take() { return std::move(slabs_); }

private:
    void put(const HeadOfGroup& first, const HeadOfGroup& second, std::span<const double> dots, bool transposed) {
        std::vector<float> stored(dots.size());
        for (std::int64_t l = 0; l < layers_; ++l) {
            for (std::int64_t m = 0; m < layers_; ++m) {
                double dot = dots[static_cast<std::size_t>(transposed ? m * layers_ + l : l * layers_ + m)];
                const int exponent = first.group.exponent(first.place, l) + second.group.exponent(second.place, m);
                if (exponent != 0) dot = std::ldexp(dot, -exponent);
                stored[static_cast<std::size_t>(l * layers_ + m)] = static_cast<float>(dot);
            }
        }
        slabs_.push_back(make_slab(schema_, "match/cross_gram", {0, first.number, 0, second.number},
                                   {layers_, 1, layers_, 1}, std::as_bytes(std::span(stored))));
    }

    const Schema& schema_;
    std::int64_t layers_;
    std::vector<Slab> slabs_;
};

void match_of_groups(const HeadVisit& visit, const MeasureContext& context) {
    const std::int64_t layers = visit.blocks.layers(), elements = layers * layers, size = context.shape.group_size();
    const KvGroupBlocks left = visit.blocks.group(visit.left, visit.heads), right = visit.blocks.group(visit.right);
    std::vector<double> dots(static_cast<std::size_t>(left.heads * right.heads * elements));
    context.backend.head_products().cross_dots(left, right, visit.blocks.format(visit.left), dots);
    for (const Unit& unit : visit.units) {
        const auto i = std::lower_bound(visit.heads.begin(), visit.heads.end(), unit.first) - visit.heads.begin();
        UnitSlabs slabs(context.schema, layers);
        const HeadOfGroup head{left, i, unit.first};
        if (unit.first / size == unit.second) slabs.add_exponents(head);
        for (std::int64_t j = 0; j < size; ++j) {
            const std::int64_t other = unit.second * size + j;
            if (other < unit.first) continue;
            slabs.add(head, {right, j, other},
                      std::span(dots).subspan(static_cast<std::size_t>((i * size + j) * elements),
                                              static_cast<std::size_t>(elements)));
        }
        context.emit({unit, slabs.take()});
    }
}

MeasureWork start_match(const MeasureContext& context) {
    MeasureWork work;
    work.pair = [&context](const HeadVisit& visit) { match_of_groups(visit, context); };
    return work;
}

}  // namespace

Measure match_measure() {
    Measure measure;
    measure.name = "match";
    measure.summary = "inner products of every head's QK operator with every other's, and which heads match";
    measure.needs = &match_needs;
    measure.declare = &declare_match;
    measure.units = &match_units;
    measure.memory = &match_memory;
    measure.work = &match_work;
    measure.start = &start_match;
    return measure;
}

}  // namespace geom
