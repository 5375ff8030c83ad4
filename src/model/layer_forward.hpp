// One decoder layer for one chunk of tokens, written with the verbs of kernels/transformer.hpp. Chunks go through a
// layer one after the other: chunk c sees the keys and values that chunks before it left in the layer's cache.
//
//   tokens     0 .. 255 | 256 .. 511 | ...      chunk_tokens each, by the model alone; the last may be shorter
//   layer 0    run(c0)    run(c1)               run(c) needs run(c - 1) of this layer and run(c) of the layer before
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_shape.hpp"
#include "kernels/backend.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// Tokens that go through the layers together.
inline constexpr std::int64_t chunk_tokens = 256;

/// Some tokens of a text.
struct TokenChunk {
    std::int64_t first = 0;  ///< a multiple of token_step
    std::int64_t tokens = 0;
};

/// Families of a layer's weights that run() reads, and of a mixture's experts.
std::vector<WeightFamily> forward_families(const LayerShape& layer);

/// Keys and values of one layer for a text.
class KvCache {
public:
    KvCache(Backend& backend, const LayerShape& layer, std::int64_t tokens);
    static std::int64_t bytes(Backend& backend, const LayerShape& layer, std::int64_t tokens);
    const KeysAndValues& at() const noexcept { return at_; }

private:
    KeysAndValues at_;
    Buffer memory_;
};

class LayerForward {
public:
    /// For texts of at most `tokens` tokens. All memory that run() takes is allocated here. Throws Error(input) with
    /// shape.forward.refusal(tokens) where there is one.
    LayerForward(Backend& backend, const ModelShape& shape, std::int64_t tokens);

    /// Bytes of the backend's memory that it takes; caches apart.
    static std::int64_t bytes(Backend& backend, const ModelShape& shape, std::int64_t tokens);

    /// Takes the chunk's stream, [chunk.tokens, hidden] f32 in the backend's memory, through layer `row` of the shape.
    /// `weights` hold its forward_families, all experts among them. The queue's work may go on after it returns.
    void run(std::int64_t row, const LayerWeights& weights, const TokenChunk& chunk, float* stream, KvCache& cache);

private:
    void attention(std::int64_t row, const LayerWeights& weights, const TokenChunk& chunk, float* stream,
                   KvCache& cache);
    void mlp(const LayerWeights& weights, const TokenChunk& chunk, float* stream);
    void mixture(std::int64_t row, const LayerWeights& weights, const TokenChunk& chunk, float* stream);
    void through_mlp(const LayerWeights& weights, std::int64_t expert, const Activations& x, const Activations& out);
    Activations part(std::int64_t which, const TokenChunk& chunk, std::int64_t width) const;

    Backend& backend_;
    const ModelShape& shape_;
    std::int64_t positions_ = 0;
    std::vector<Buffer> turns_;            // of each head_dim of the shape
    std::vector<std::int64_t> head_dims_;  // likewise
    std::vector<Buffer> parts_;            // activations of a chunk
    std::vector<std::int32_t> experts_;    // of each token
    std::vector<float> expert_weights_;    // likewise
    std::vector<std::int32_t> tokens_of_;  // of an expert
    std::vector<float> token_weights_;     // likewise
};

}  // namespace geom
