#include "measures/gram.hpp"

#include <span>

namespace geom {

namespace {

std::vector<Variable> gram_variables() {
    return {{"gram",
             "gram",
             {"layer", "layer_b", "head"},
             ValueType::f64,
             "Frobenius inner product of the QK operators W_K^T W_Q of two layers, same head",
             "1",
             ""}};
}

void gram_of_group(const HeadStore& blocks, std::int64_t share, const MeasureContext& context) {
    const std::int64_t layers = blocks.layers(), elements = layers * layers;
    const KvGroupBlocks group = blocks.group(share);
    std::vector<double> gram(static_cast<std::size_t>(group.heads * elements));
    context.backend.tile_dots(group, blocks.format(), gram);
    for (std::int64_t i = 0; i < group.heads; ++i) {
        const std::int64_t head = blocks.shares()[static_cast<std::size_t>(share)].heads[static_cast<std::size_t>(i)];
        const auto of_head =
            std::span(gram).subspan(static_cast<std::size_t>(i * elements), static_cast<std::size_t>(elements));
        Slab slab = make_slab(context.schema, "gram/gram", {0, 0, head}, {layers, layers, 1}, std::as_bytes(of_head));
        context.emit({{"gram", head}, {std::move(slab)}});
    }
}

}  // namespace

Measure gram_measure() {
    Measure measure;
    measure.name = "gram";
    measure.summary = "inner products of the QK operators of any two layers, and their cosines";
    measure.needs = {WeightFamily::q_proj, WeightFamily::k_proj};
    measure.head_blocks = true;
    measure.variables = &gram_variables;
    measure.group = &gram_of_group;
    return measure;
}

}  // namespace geom
