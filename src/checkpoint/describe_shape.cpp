#include "checkpoint/describe_shape.hpp"

#include "checkpoint/describe_forward.hpp"

namespace geom {

namespace {

WeightShape weight_shape(const Checkpoint& checkpoint, WeightFamily family, std::int64_t layer, std::int64_t expert) {
    const Weight weight = checkpoint.weight(family, layer, expert);
    return {family, expert, weight.rows, weight.cols, weight.dtype};
}

// Families up to router belong to a layer, the others to the model.
constexpr int layer_families = static_cast<int>(WeightFamily::embed_tokens);

LayerShape layer_shape(const Checkpoint& checkpoint, std::int64_t number) {
    const ModelConfig& config = checkpoint.config();
    LayerShape layer;
    layer.number = number;
    layer.kv_heads = config.kv_heads;
    layer.head_dim = config.head_dim;
    layer.experts = config.layer_has_experts(number) ? config.moe.experts : 0;
    for (std::int64_t expert = -1; expert < layer.experts; ++expert) {
        for (int f = 0; f < layer_families; ++f) {
            const auto family = static_cast<WeightFamily>(f);
            const bool demanded =
                expert < 0 && (family == WeightFamily::q_proj || family == WeightFamily::k_proj);  // of every layer
            if (demanded || checkpoint.has(family, number, expert))
                layer.weights.push_back(weight_shape(checkpoint, family, number, expert));
        }
    }
    return layer;
}

}  // namespace

ModelShape shape_of(const Checkpoint& checkpoint, Range layers, const MeasureSettings& settings) {
    const ModelConfig& config = checkpoint.config();
    ModelShape shape;
    shape.family = checkpoint.family().name;
    shape.model_layers = config.layers;
    shape.heads = config.heads;
    shape.hidden = config.hidden;
    shape.vocabulary = config.vocabulary;
    shape.forward = forward_shape_of(checkpoint.family(), config);
    shape.settings = settings;
    for (std::int64_t number = layers.begin; number < layers.end; ++number)
        shape.layers.push_back(layer_shape(checkpoint, number));
    for (const WeightFamily family : {WeightFamily::embed_tokens, WeightFamily::lm_head}) {
        if (checkpoint.has(family, -1)) shape.globals.push_back(weight_shape(checkpoint, family, -1, -1));
    }
    return shape;
}

}  // namespace geom
