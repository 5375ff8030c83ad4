// A model's forward pass as a measure would run it: layers from a checkpoint, one after the other.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/describe_shape.hpp"
#include "model/cross_entropy.hpp"
#include "model/layer_forward.hpp"
#include "stream/layer_stream.hpp"
#include "support/backend_memory.hpp"

namespace geom::test {

struct ForwardResult {
    std::vector<std::vector<float>> states;  // [edge][token, hidden]
    double cross_entropy = 0;
};

inline std::vector<float> floats_of(const std::vector<std::byte>& bytes) {
    std::vector<float> numbers(bytes.size() / 4);
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
}

class ForwardPass {
public:
    ForwardPass(const std::string& model, Backend& backend)
        : checkpoint_(Checkpoint::open(model, "", "")),
          backend_(backend),
          reader_(checkpoint_.files(), 1),
          shape_(shape_of(checkpoint_, {0, checkpoint_.config().layers}, {})) {}

    const ModelShape& shape() const { return shape_; }

    /// `strip`: rows of lm_head at a time.
    ForwardResult run(const std::vector<std::int32_t>& ids, std::int64_t chunk = chunk_tokens,
                      std::int64_t strip = 1000) {
        const auto tokens = std::ssize(ids);
        std::vector<LayerRequest> requests{{-1, {{WeightFamily::embed_tokens, {}}, {WeightFamily::final_norm, {}}}}};
        const bool tied = !checkpoint_.has(WeightFamily::lm_head, -1);
        if (!tied) requests[0].weights.push_back({WeightFamily::lm_head, {}});
        for (const LayerShape& layer : shape_.layers) {
            requests.push_back({layer.number, {}});
            for (const WeightShape& weight : layer.weights)
                requests.back().weights.push_back({weight.family, {}, weight.expert});
        }
        LayerStream stream({{&checkpoint_, &reader_}}, backend_, requests, std::ssize(requests), [] {});
        const LayerWeights& globals = *stream.next();
        Transformer& verbs = backend_.transformer();
        const Buffer rows = backend_.allocate(tokens * shape_.hidden * 4);
        const MatrixRef embedding = globals.matrix(WeightFamily::embed_tokens);
        verbs.embed({embedding.data, embedding.dtype, 300, embedding.cols}, 0, ids, rows.as<float>());
        verbs.embed({embedding.data + 300 * embedding.cols * size_of(embedding.dtype), embedding.dtype,
                     embedding.rows - 300, embedding.cols},
                    300, ids, rows.as<float>());
        ForwardResult result;
        const auto keep = [&] { result.states.push_back(floats_of(from_backend(backend_, rows.data(), rows.size()))); };
        const auto for_chunks = [&](const auto& f) {
            for (std::int64_t first = 0; first < tokens; first += chunk)
                f(TokenChunk{first, std::min(chunk, tokens - first)}, rows.as<float>() + first * shape_.hidden);
        };
        keep();
        LayerForward forward(backend_, shape_, tokens);
        for (std::int64_t row = 0; row < shape_.rows(); ++row) {
            const LayerWeights& weights = *stream.next();
            KvCache cache(backend_, shape_.at(row), tokens);
            for_chunks([&](const TokenChunk& part, float* at) { forward.run(row, weights, part, at, cache); });
            keep();
        }
        CrossEntropy entropy(backend_, shape_, ids);
        for (std::int64_t first = 0; first < tokens; first += chunk_tokens) {
            entropy.set({first, std::min(chunk_tokens, tokens - first)}, rows.as<float>() + first * shape_.hidden,
                        globals.matrix(WeightFamily::final_norm));
        }
        const MatrixRef head = tied ? embedding : globals.matrix(WeightFamily::lm_head);
        for (std::int64_t first = 0; first < head.rows; first += strip) {
            entropy.add({head.data + first * head.cols * size_of(head.dtype), head.dtype,
                         std::min(strip, head.rows - first), head.cols},
                        first);
        }
        result.cross_entropy = entropy.mean();
        return result;
    }

private:
    Checkpoint checkpoint_;
    Backend& backend_;
    Reader reader_;
    ModelShape shape_;
};

}  // namespace geom::test
