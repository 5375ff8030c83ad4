#include "app/bench_forward.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "checkpoint/describe_shape.hpp"
#include "model/layer_forward.hpp"
#include "stream/layer_stream.hpp"

namespace geom {

namespace {

constexpr std::int64_t tokens = 2048, most_layers = 4;

std::vector<LayerRequest> requests_of(const ModelShape& shape) {
    std::vector<LayerRequest> requests;
    for (const LayerShape& layer : shape.layers) {
        requests.push_back({layer.number, {}});
        for (const WeightShape& weight : layer.weights)
            requests.back().weights.push_back({weight.family, {}, weight.expert});
    }
    return requests;
}

class ForwardPart final : public BenchPart {
public:
    ForwardPart(const Checkpoint& checkpoint, Backend& backend)
        : backend_(backend),
          layers_(checkpoint.config().layers),
          shape_(shape_of(checkpoint, {0, std::min(layers_, most_layers)}, {})),
          reader_(checkpoint.files(), Reader::threads_for(checkpoint.files(), backend.workers().size())),
          stream_({{&checkpoint, &reader_}}, backend, requests_of(shape_), shape_.rows() + 1, [] {}),
          forward_(backend, shape_, tokens),
          cache_(backend, shape_.at(0), tokens),
          states_(backend.allocate(bytes())) {
        for (std::int64_t row = 0; row < shape_.rows(); ++row) weights_.push_back(stream_.next());
    }

    void once(BenchTable& table) override {
        draw_states();
        const auto begin = std::chrono::steady_clock::now();
        for (std::int64_t layer = 0; layer < layers_; ++layer) {
            const std::int64_t row = layer % shape_.rows();
            for (std::int64_t first = 0; first < tokens; first += chunk_tokens) {
                forward_.run(row, *weights_[static_cast<std::size_t>(row)], {first, chunk_tokens},
                             states_.as<float>() + first * shape_.hidden, cache_);
            }
        }
        backend_.queue().wait();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        const std::string path = backend_.transformer().path(shape_.at(0).weights[0].dtype);
        table.add(fmt::format("forward, {} tokens", tokens), "s", seconds);
        table.add(fmt::format("forward, {}", path), "TFLOP/s", 1e-12 * flops() / seconds);
    }

private:
    std::int64_t bytes() const { return tokens * shape_.hidden * 4; }

    void draw_states() {
        const Buffer staging = backend_.queue().allocate_staging(bytes());
        std::minstd_rand draw(1);
        for (std::int64_t i = 0; i < tokens * shape_.hidden; ++i)
            staging.as<float>()[i] = static_cast<float>(static_cast<double>(draw()) * 0x1p-30 - 1.0);
        backend_.queue().copy(states_.data(), staging.data(), bytes());
        backend_.queue().wait();
    }

    /// Of products with weights, and of attention's, of which causality leaves half.
    double flops() const {
        const LayerShape& layer = shape_.at(0);
        std::int64_t elements = tokens * shape_.heads * layer.head_dim;
        for (const WeightShape& weight : layer.weights) {
            const std::int64_t size = weight.rows * weight.cols;
            elements += weight.expert < 0 ? size : size * shape_.forward.experts_per_token / layer.experts;
        }
        return 2.0 * static_cast<double>(layers_) * static_cast<double>(tokens) * static_cast<double>(elements);
    }

    Backend& backend_;
    std::int64_t layers_;
    ModelShape shape_;
    Reader reader_;
    LayerStream stream_;
    LayerForward forward_;
    KvCache cache_;
    Buffer states_;
    std::vector<const LayerWeights*> weights_;
};

}  // namespace

std::unique_ptr<BenchPart> make_forward_part(const Checkpoint& checkpoint, Backend& backend) {
    return std::make_unique<ForwardPart>(checkpoint, backend);
}

}  // namespace geom
