#include "app/selfcheck.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "app/stop_signals.hpp"
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/describe_shape.hpp"
#include "core/error.hpp"
#include "kernels/backend.hpp"
#include "kernels/cpu/stored_rows.hpp"
#include "measures/function_gauge.hpp"
#include "measures/made_layer.hpp"
#include "measures/neuron_matching.hpp"
#include "measures/rotation_gauge.hpp"
#include "model/cross_entropy.hpp"
#include "model/layer_forward.hpp"
#include "output/tables.hpp"
#include "stream/layer_stream.hpp"

namespace geom {

namespace {

constexpr std::int64_t most_tokens = 64;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A number that grows with what is wrong, or shrinks.
struct Check {
    std::string what, theory;
    double found = 0.0, bound = 0.0;
    bool at_most = true;

    bool holds() const { return at_most ? found <= bound : found >= bound; }
    /// NaN, which holds nothing, stays.
    void add(double number) {
        if (std::isnan(found)) return;
        if (std::isnan(number) || (at_most ? number > found : number < found)) found = number;
    }
};

constexpr std::array changed_families{WeightFamily::q_proj,   WeightFamily::k_proj,    WeightFamily::v_proj,
                                      WeightFamily::o_proj,   WeightFamily::q_bias,    WeightFamily::k_bias,
                                      WeightFamily::v_bias,   WeightFamily::gate_proj, WeightFamily::up_proj,
                                      WeightFamily::down_proj};

WeightRequest whole(WeightFamily family, std::int64_t expert = -1) { return {family, {}, expert}; }

void stop_when_asked() {
    if (stop_signal() != 0) throw Error(ExitCode::stopped, fmt::format("stopped by {}", signal_name(stop_signal())));
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double apart = std::abs(double{a[i]} - double{b[i]});
        if (!(apart <= largest)) largest = apart;
    }
    return largest;
}

class Selfcheck {
public:
    Selfcheck(const SelfcheckOptions& options, int threads)
        : checkpoint_(Checkpoint::open(options.model, options.revision, "")),
          backend_(make_cpu_backend(threads, usable_isa())),
          reader_(checkpoint_.files(), 1, checkpoint_.stamps()),
          shape_(shape_of(checkpoint_, {0, checkpoint_.config().layers}, {})),
          refused_(shape_.forward.refusal(most_tokens)) {
        backend_->transformer().use(ForwardProducts::f32);
        for (std::int64_t i = 0; i < most_tokens; ++i)
            ids_.push_back(static_cast<std::int32_t>(random_.uniform() * static_cast<double>(shape_.vocabulary)));
    }

    void run() {
        LayerStream stream({{&checkpoint_, &reader_}}, *backend_, requests(), 2, [] { stop_when_asked(); });
        if (forward()) embed(*stream.next());
        for (std::int64_t row = 0; row < shape_.rows(); ++row) look_at_layer(row, *stream.next());
        if (forward()) compare_predictions(*stream.next());
    }

    void speak() const {
        Table table{
            "selfcheck",
            fmt::format("{}: every layer changed in memory by a random element of the gauge function",
                        checkpoint_.name()),
            forward() ? "The worst of all layers." : "The worst of all layers. No forward pass: " + refused_ + ".",
            {{"what", "", Align::left}, {"theory", "", Align::left}, {"found"}, {"bound"}, {"", "", Align::left}},
            {}};
        for (const Check* check : checks()) {
            table.rows.push_back({check->what, check->theory, check->found,
                                  fmt::format("{} {:.0e}", check->at_most ? "<=" : ">=", check->bound),
                                  check->holds() ? "holds" : "DOES NOT HOLD"});
        }
        fmt::print("{}", as_text({{{"model", checkpoint_.name()}}, {table}}));
        const auto all = checks();
        const auto failed = std::count_if(all.begin(), all.end(), [](const Check* check) { return !check->holds(); });
        if (failed > 0)
            throw Error(ExitCode::numerics, fmt::format("selfcheck: {} of {} do not hold", failed, all.size()));
    }

private:
    bool forward() const { return refused_.empty(); }

    std::vector<const Check*> checks() const {
        std::vector<const Check*> all{&operators_, &brought_back_, &moved_};
        if (forward()) all.insert(all.begin(), {&output_, &prediction_});
        return all;
    }

    std::vector<LayerRequest> requests() const {
        const bool tied = !checkpoint_.has(WeightFamily::lm_head, -1);
        std::vector<LayerRequest> all;
        if (forward()) all.push_back({-1, {whole(WeightFamily::embed_tokens)}});
        for (const LayerShape& layer : shape_.layers) {
            all.push_back({layer.number, {}});
            for (const WeightShape& weight : layer.weights)
                all.back().weights.push_back(whole(weight.family, weight.expert));
        }
        if (forward())
            all.push_back(
                {-1,
                 {whole(tied ? WeightFamily::embed_tokens : WeightFamily::lm_head), whole(WeightFamily::final_norm)}});
        return all;
    }

    /// What can be changed of a layer, and its norms.
    LayerTensors tensors_of(std::int64_t row, const LayerWeights& weights) const {
        const LayerShape& layer = shape_.at(row);
        LayerTensors out{shape_.heads, layer.kv_heads, layer.head_dim, shape_.hidden, 0, {}};
        if (const WeightShape* gate = layer.find(WeightFamily::gate_proj)) out.intermediate = gate->rows;
        for (const WeightShape& weight : layer.weights) {
            if (weight.expert >= 0 || weight.family == WeightFamily::router) continue;
            const MatrixRef matrix = weights.matrix(weight.family);
            std::vector<double>& numbers = out.of[weight.family];
            numbers.resize(at(matrix.rows * matrix.cols));
            cpu::widen(matrix, {0, matrix.cols}, numbers.data());
        }
        return out;
    }

    void look_at_layer(std::int64_t row, const LayerWeights& weights) {
        stop_when_asked();
        LayerTensors layer = tensors_of(row, weights);
        const MadeLayer original(layer);
        const FunctionElement element = random_function_element(layer, random_);
        apply(element, layer);
        const MadeLayer changed(layer);
        if (forward()) compare_outputs(row, weights, changed);
        compare_operators(element, original, changed);
        compare_variation(original, changed);
    }

    // --- the forward pass

    void embed(const LayerWeights& globals) {
        stream_.resize(at(most_tokens * shape_.hidden));
        backend_->transformer().embed(globals.matrix(WeightFamily::embed_tokens), 0, ids_, stream_.data());
        changed_stream_ = stream_;
        forward_ = std::make_unique<LayerForward>(*backend_, shape_, most_tokens);
    }

    std::vector<float> through(std::int64_t row, const LayerWeights& weights, std::vector<float> stream) {
        KvCache cache(*backend_, shape_.at(row), most_tokens);
        forward_->run(row, weights, {0, most_tokens}, stream.data(), cache);
        backend_->queue().wait();
        return stream;
    }

    // On the same input; and through the changed layers alone.
    void compare_outputs(std::int64_t row, const LayerWeights& weights, const MadeLayer& made) {
        LayerWeights changed = weights;
        for (const WeightFamily family : changed_families) {
            if (made.matrix(family).data != nullptr) changed = changed.with(family, made.matrix(family));
        }
        const std::vector<float> before = stream_, other = through(row, changed, before);
        stream_ = through(row, weights, before);
        changed_stream_ = through(row, changed, changed_stream_);
        output_.add(largest_difference(stream_, other) / largest_difference(stream_, before));
    }

    double entropy_of(const LayerWeights& globals, const std::vector<float>& stream) {
        CrossEntropy entropy(*backend_, shape_, ids_);
        entropy.set({0, most_tokens}, stream.data(), globals.matrix(WeightFamily::final_norm));
        const WeightFamily head =
            globals.has(WeightFamily::lm_head) ? WeightFamily::lm_head : WeightFamily::embed_tokens;
        entropy.add(globals.matrix(head), 0);
        return entropy.mean();
    }

    void compare_predictions(const LayerWeights& globals) {
        prediction_.add(std::abs(entropy_of(globals, stream_) - entropy_of(globals, changed_stream_)));
    }

    // --- what measures say

    /// Heads h of the key head c: one of the original layer and what it became, as if they were two layers.
    void compare_operators(const FunctionElement& element, const MadeLayer& original, const MadeLayer& changed) {
        const PairShape& shape = original.shape();
        const std::int64_t hd = shape.head_dim, group = shape.heads / shape.kv_heads;
        HeadProducts& products = backend_->head_products();
        const HeadBlockFormat format = products.format(DType::f32, hd, shape.hidden);
        const Buffer packed = backend_->allocate(2 * (1 + group) * format.bytes);
        const auto block = [&](const MadeLayer& layer, WeightFamily family, std::int64_t head) {
            const MatrixRef whole = layer.matrix(family);
            return MatrixRef{whole.data + head * hd * whole.cols * size_of(whole.dtype), whole.dtype, hd, whole.cols};
        };
        for (std::int64_t c = 0; c < shape.kv_heads; ++c) {
            std::vector<MatrixRef> blocks{block(original, WeightFamily::k_proj, c),
                                          block(changed, WeightFamily::k_proj, element.head_to[at(c * group)] / group)};
            for (std::int64_t h = c * group; h < (c + 1) * group; ++h) {
                blocks.push_back(block(original, WeightFamily::q_proj, h));
                blocks.push_back(block(changed, WeightFamily::q_proj, element.head_to[at(h)]));
            }
            std::vector<std::byte*> places;
            for (std::int64_t i = 0; i < std::ssize(blocks); ++i) places.push_back(packed.data() + i * format.bytes);
            products.pack(blocks, format, places);
            std::vector<double> dots(at(group * 4));
            products.tile_dots({2, group, packed.data(), packed.data() + 2 * format.bytes}, format, dots);
            for (std::int64_t i = 0; i < group; ++i) {
                const double one = dots[at(4 * i)], both = dots[at(4 * i + 1)], other = dots[at(4 * i + 3)];
                if (one > 0) operators_.add(std::max(std::abs(1 - both / one), std::abs(1 - other / one)));
            }
        }
    }

    void compare_variation(const MadeLayer& original, const MadeLayer& changed) {
        const LayerPair pair = pair_of(original, changed, true);
        const auto add = [&](const Gauge& gauge, Check& check) {
            FamilyResiduals residuals;
            gauge.attention(pair, *backend_, residuals);
            if (pair.shape.intermediate > 0) gauge.mlp(pair, *backend_, residuals);
            for (std::size_t i = 0; i < variation_family_count; ++i) {
                if (!std::isnan(residuals.value(i))) check.add(residuals.value(i));
            }
        };
        add(function_gauge(), brought_back_);
        add(none_folded_gauge(), moved_);
    }

    Checkpoint checkpoint_;
    std::unique_ptr<Backend> backend_;
    Reader reader_;
    ModelShape shape_;
    std::string refused_;  // why there is no forward pass
    RandomNumbers random_{1};
    std::vector<std::int32_t> ids_;
    std::unique_ptr<LayerForward> forward_;
    std::vector<float> stream_, changed_stream_;
    Check output_{"a layer's output, as a share of its largest step", "the same", 0.0, 1e-4};
    Check prediction_{"cross entropy of made-up tokens", "the same", 0.0, 1e-3};
    Check operators_{"QK operators of heads, products with themselves", "the same, in another order", 0.0, 1e-5};
    Check brought_back_{"variation, gauge function", "0", 0.0, 1e-6};
    Check moved_{"variation, nothing aligned", "far from 0", 1e300, 0.1, false};
};

}  // namespace

void selfcheck(const SelfcheckOptions& options, int threads) {
    Selfcheck check(options, threads);
    check.run();
    check.speak();
}

}  // namespace geom
