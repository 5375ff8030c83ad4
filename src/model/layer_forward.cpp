#include "model/layer_forward.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"

namespace geom {

namespace {

using W = WeightFamily;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t rows_of(const LayerShape& layer, W family, std::int64_t expert = -1) {
    const WeightShape* weight = layer.find(family, expert);
    return weight != nullptr ? weight->rows : 0;
}

/// Widths of the activations that a chunk takes through any layer: what is normed, then four that attention and MLP use
/// one after the other (q and gate, attended and up, k and what is added, v and an expert's tokens).
std::vector<std::int64_t> widths_of(const ModelShape& shape) {
    std::int64_t queries = 0, keys = 0, inner = 0;
    for (const LayerShape& layer : shape.layers) {
        queries = std::max(queries, rows_of(layer, W::q_proj));
        keys = std::max(keys, rows_of(layer, W::k_proj));
        for (std::int64_t expert = -1; expert < layer.experts; ++expert)
            inner = std::max(inner, rows_of(layer, W::gate_proj, expert));
    }
    const std::int64_t wide = std::max(queries, inner), narrow = std::max(keys, shape.hidden);
    return {shape.hidden, wide, wide, narrow, narrow};
}

std::int64_t chunk_of(std::int64_t tokens) { return std::min(tokens, chunk_tokens); }

/// Positions of a table, of whole chunks.
std::int64_t positions_of(std::int64_t tokens) { return (tokens + chunk_tokens - 1) / chunk_tokens * chunk_tokens; }

std::vector<std::int64_t> head_dims_of(const ModelShape& shape) {
    std::vector<std::int64_t> all;
    for (const LayerShape& layer : shape.layers) all.push_back(layer.head_dim);
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

std::int64_t table_bytes(std::int64_t head_dim, std::int64_t positions) { return 4 * head_dim * positions; }

/// Cosines, then sines, [head_dim / 2, positions] each: of f32 angles, as models are trained with.
void fill_table(const RopeShape& rope, std::int64_t head_dim, std::int64_t positions, float* table) {
    const Rotation rotation = rotation_of(rope, head_dim);
    for (std::int64_t i = 0; i < head_dim / 2; ++i) {
        for (std::int64_t position = 0; position < positions; ++position) {
            const double angle = static_cast<double>(static_cast<float>(position) * rotation.frequencies[at(i)]);
            float* cosine = table + i * positions + position;
            *cosine = static_cast<float>(std::cos(angle)) * rotation.scale;
            cosine[head_dim / 2 * positions] = static_cast<float>(std::sin(angle)) * rotation.scale;
        }
    }
}

KeysAndValues cache_of(const LayerShape& layer, std::int64_t tokens) {
    return {nullptr, tokens, layer.kv_heads, layer.head_dim};
}

}  // namespace

std::vector<WeightFamily> forward_families(const LayerShape& layer) {
    std::vector<WeightFamily> families;
    for (const WeightShape& weight : layer.weights) {
        if (weight.expert <= 0 && (families.empty() || families.back() != weight.family))
            families.push_back(weight.family);
    }
    return families;
}

KvCache::KvCache(Backend& backend, const LayerShape& layer, std::int64_t tokens)
    : at_(cache_of(layer, tokens)), memory_(backend.allocate(bytes(backend, layer, tokens))) {
    at_.data = memory_.as<float>();
}

std::int64_t KvCache::bytes(Backend& backend, const LayerShape& layer, std::int64_t tokens) {
    return backend.transformer().cache_bytes(cache_of(layer, tokens));
}

LayerForward::LayerForward(Backend& backend, const ModelShape& shape, std::int64_t tokens)
    : backend_(backend), shape_(shape), positions_(positions_of(tokens)), head_dims_(head_dims_of(shape)) {
    if (const std::string why = shape.forward.refusal(tokens); !why.empty())
        throw Error(ExitCode::input, "no forward pass: " + why);
    for (const std::int64_t head_dim : head_dims_) {
        const std::int64_t size = table_bytes(head_dim, positions_);
        const Buffer staging = backend.queue().allocate_staging(size);
        fill_table(shape.forward.rope, head_dim, positions_, staging.as<float>());
        turns_.push_back(backend.allocate(size));
        backend.queue().copy(turns_.back().data(), staging.data(), size);
        backend.queue().wait();
    }
    for (const std::int64_t width : widths_of(shape))
        parts_.push_back(backend.allocate(backend.transformer().activation_bytes(chunk_of(tokens), width)));
    const std::int64_t choices = chunk_of(tokens) * shape.forward.experts_per_token;
    experts_.resize(at(choices));
    expert_weights_.resize(at(choices));
    tokens_of_.reserve(at(chunk_of(tokens)));
    token_weights_.reserve(at(chunk_of(tokens)));
}

std::int64_t LayerForward::bytes(Backend& backend, const ModelShape& shape, std::int64_t tokens) {
    Transformer& verbs = backend.transformer();
    std::int64_t bytes = verbs.scratch_bytes(chunk_of(tokens), widths_of(shape)[1], shape.head_dim());
    for (const std::int64_t head_dim : head_dims_of(shape)) bytes += table_bytes(head_dim, positions_of(tokens));
    for (const std::int64_t width : widths_of(shape)) bytes += verbs.activation_bytes(chunk_of(tokens), width);
    std::int64_t experts = 0;  // a router's logits
    for (const LayerShape& layer : shape.layers) experts = std::max(experts, layer.experts);
    return bytes + verbs.activation_bytes(chunk_of(tokens), experts);
}

Activations LayerForward::part(std::int64_t which, const TokenChunk& chunk, std::int64_t width) const {
    return {parts_[at(which)].as<float>(), chunk.tokens, width};
}

void LayerForward::run(std::int64_t row, const LayerWeights& weights, const TokenChunk& chunk, float* stream,
                       KvCache& cache) {
    attention(row, weights, chunk, stream, cache);
    if (shape_.at(row).experts > 0) {
        mixture(row, weights, chunk, stream);
    } else {
        mlp(weights, chunk, stream);
    }
}

void LayerForward::attention(std::int64_t row, const LayerWeights& weights, const TokenChunk& chunk, float* stream,
                             KvCache& cache) {
    Transformer& verbs = backend_.transformer();
    const LayerShape& layer = shape_.at(row);
    const Activations x = part(0, chunk, shape_.hidden), added = part(3, chunk, shape_.hidden);
    verbs.rms_norm(stream, weights.matrix(W::input_ln), shape_.forward.norm_eps, x);
    const auto project = [&](W family, W bias, std::int64_t which) {
        const MatrixRef w = weights.matrix(family);
        const Activations out = part(which, chunk, w.rows);
        const MatrixRef added_to = weights.has(bias) ? weights.matrix(bias) : MatrixRef{};
        verbs.product(x, w, weights.has(bias) ? &added_to : nullptr, out);
        return out;
    };
    const auto turn = [&](const Activations& heads, W norm) {
        const auto known = std::lower_bound(head_dims_.begin(), head_dims_.end(), layer.head_dim) - head_dims_.begin();
        const MatrixRef factors = weights.has(norm) ? weights.matrix(norm) : MatrixRef{};
        verbs.rotate(heads, {turns_[at(known)].as<float>(), positions_, chunk.first, layer.head_dim,
                             weights.has(norm) ? &factors : nullptr, shape_.forward.norm_eps});
    };
    const Activations q = project(W::q_proj, W::q_bias, 1), k = project(W::k_proj, W::k_bias, 3),
                      v = project(W::v_proj, W::v_bias, 4);
    turn(q, W::q_norm);
    turn(k, W::k_norm);
    verbs.append(k, v, chunk.first, cache.at());
    const Activations attended = part(2, chunk, q.width);
    verbs.attend(q, cache.at(), chunk.first, attended);
    verbs.product(attended, weights.matrix(W::o_proj), nullptr, added);
    verbs.add(added, stream);
}

void LayerForward::mlp(const LayerWeights& weights, const TokenChunk& chunk, float* stream) {
    Transformer& verbs = backend_.transformer();
    const Activations x = part(0, chunk, shape_.hidden), added = part(3, chunk, shape_.hidden);
    verbs.rms_norm(stream, weights.matrix(W::post_attn_ln), shape_.forward.norm_eps, x);
    through_mlp(weights, -1, x, added);
    verbs.add(added, stream);
}

void LayerForward::through_mlp(const LayerWeights& weights, std::int64_t expert, const Activations& x,
                               const Activations& out) {
    Transformer& verbs = backend_.transformer();
    const MatrixRef w = weights.matrix(W::gate_proj, expert);
    const TokenChunk tokens{0, x.tokens};
    const Activations gate = part(1, tokens, w.rows), up = part(2, tokens, w.rows);
    verbs.product(x, w, nullptr, gate);
    verbs.product(x, weights.matrix(W::up_proj, expert), nullptr, up);
    verbs.gate(gate, up);
    verbs.product(gate, weights.matrix(W::down_proj, expert), nullptr, out);
}

// Experts in rising order, each for the tokens that chose it.
void LayerForward::mixture(std::int64_t row, const LayerWeights& weights, const TokenChunk& chunk, float* stream) {
    Transformer& verbs = backend_.transformer();
    const Activations x = part(0, chunk, shape_.hidden);
    const Routing routing{shape_.forward.experts_per_token, shape_.forward.renormalise};
    const auto choices = at(chunk.tokens * routing.per_token);
    verbs.rms_norm(stream, weights.matrix(W::post_attn_ln), shape_.forward.norm_eps, x);
    verbs.route(x, weights.matrix(W::router), routing, std::span(experts_).first(choices),
                std::span(expert_weights_).first(choices));
    for (std::int64_t expert = 0; expert < shape_.at(row).experts; ++expert) {
        tokens_of_.clear();
        token_weights_.clear();
        for (std::size_t i = 0; i < choices; ++i) {
            if (experts_[i] != expert) continue;
            tokens_of_.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(i) / routing.per_token));
            token_weights_.push_back(expert_weights_[i]);
        }
        if (tokens_of_.empty()) continue;
        const TokenChunk some{0, std::ssize(tokens_of_)};
        const Activations of_expert = part(4, some, shape_.hidden), added = part(3, some, shape_.hidden);
        verbs.gather(x, tokens_of_, of_expert);
        through_mlp(weights, expert, of_expert, added);
        verbs.add_scaled(added, tokens_of_, token_weights_, stream);
    }
}

}  // namespace geom
