#include "measures/made_layer.hpp"

namespace geom {

namespace {

std::int64_t columns_of(const PairShape& shape, WeightFamily family, std::int64_t elements) {
    switch (family) {
        case WeightFamily::q_proj:
        case WeightFamily::k_proj:
        case WeightFamily::v_proj:
        case WeightFamily::gate_proj:
        case WeightFamily::up_proj:
            return shape.hidden;
        case WeightFamily::o_proj:
            return shape.heads * shape.head_dim;
        case WeightFamily::down_proj:
            return shape.intermediate;
        default:
            return elements;
    }
}

}  // namespace

MadeLayer::MadeLayer(const LayerTensors& layer)
    : shape_{layer.heads, layer.kv_heads, layer.head_dim, layer.hidden, layer.intermediate} {
    for (const auto& [family, numbers] : layer.of) {
        stored_[family].assign(numbers.begin(), numbers.end());
        if (family == WeightFamily::input_ln || family == WeightFamily::post_attn_ln) norms_[family] = numbers;
    }
}

MatrixRef MadeLayer::matrix(WeightFamily family) const {
    const auto found = stored_.find(family);
    if (found == stored_.end()) return {};
    const auto elements = std::ssize(found->second);
    const std::int64_t cols = columns_of(shape_, family, elements);
    return {reinterpret_cast<const std::byte*>(found->second.data()), DType::f32, elements / cols, cols};
}

FoldedMatrix MadeLayer::folded(WeightFamily family) const {
    const WeightFamily norm = norm_before(family);
    return {matrix(family), norm == family || !norms_.contains(norm) ? nullptr : norms_.at(norm).data()};
}

LayerPair pair_of(const MadeLayer& a, const MadeLayer& b, bool folded) {
    LayerPair pair;
    pair.shape = a.shape();
    for (std::size_t i = 0; i < variation_family_count; ++i) {
        const WeightFamily family = variation_families[i];
        pair.families[i] = folded ? FamilyPair{a.folded(family), b.folded(family)}
                                  : FamilyPair{{a.matrix(family)}, {b.matrix(family)}};
    }
    return pair;
}

}  // namespace geom
