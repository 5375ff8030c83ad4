#include "app/probe.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace geom {

namespace {

template <class F>
double best_of_two(F&& f) {
    double best = 0.0;
    for (int turn = 0; turn < 2; ++turn) {  // the first one lets libraries settle
        const auto begin = std::chrono::steady_clock::now();
        f();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        best = turn == 0 ? seconds : std::min(best, seconds);
    }
    return std::max(best, 1e-9);
}

// Weights of a few heads, alike: what a product takes does not depend on it.
class SampleBlocks {
public:
    SampleBlocks(Backend& backend, std::int64_t head_dim, std::int64_t hidden)
        : weights_(backend.input_buffer(head_dim * hidden * 2)),
          block{weights_->data(), DType::bf16, head_dim, hidden} {
        const auto values = random_bf16(head_dim * hidden);
        weights_->wait_sent();
        std::memcpy(weights_->host(), values.data(), values.size() * sizeof values[0]);
        weights_->send(head_dim * hidden * 2);
        weights_->receive();
    }

private:
    std::unique_ptr<InputBuffer> weights_;

public:
    const MatrixRef block;
};

// tile_dots as gram calls it, on a few layers of a group.
double product_rate(Backend& backend, const HeadBlockFormat& of_run, const SampleBlocks& sample) {
    const std::int64_t layers = backend.on_device() ? 16 : 6, heads = 2;
    const MatrixRef& block = sample.block;
    const HeadBlockFormat format = backend.head_products().format(of_run.dtype, block.rows, block.cols);
    const Buffer blocks = backend.allocate((1 + heads) * layers * format.bytes);
    std::vector<MatrixRef> stored(static_cast<std::size_t>((1 + heads) * layers), block);
    std::vector<std::byte*> packed;
    for (std::size_t i = 0; i < stored.size(); ++i)
        packed.push_back(blocks.data() + static_cast<std::int64_t>(i) * format.bytes);
    backend.head_products().pack(stored, format, packed);
    std::vector<double> dots(static_cast<std::size_t>(heads * layers * layers));
    const KvGroupBlocks group{layers, heads, blocks.data(), blocks.data() + layers * format.bytes};
    const double seconds = best_of_two([&] { backend.head_products().tile_dots(group, format, dots); });
    const std::int64_t tiles = (1 + heads) * layers * (layers + 1) / 2;
    return static_cast<double>(tiles * 2 * block.rows * block.rows * block.cols) / seconds;
}

// Gram matrices of head blocks in fp64, as heads forms them.
double fp64_rate(Backend& backend, const SampleBlocks& sample) {
    DenseBatch& dense = backend.dense();
    const std::int64_t n = sample.block.rows, count = backend.on_device() ? 64 : 2 * backend.workers().size();
    const Buffer memory = dense.allocate(count * 4 * n * n * 8);
    Batch grams{{}, 2 * n, 2 * n, 2 * n};
    for (std::int64_t i = 0; i < count; ++i) grams.at.push_back(memory.as<double>() + i * 4 * n * n);
    const std::vector<MatrixRef> blocks(static_cast<std::size_t>(count), sample.block);
    const double seconds = best_of_two([&] {
        dense.stacked_grams(blocks, blocks, grams);
        backend.queue().wait();
    });
    return static_cast<double>(count * 4 * n * n * sample.block.cols) / seconds;
}

double copy_rate(Backend& backend) {
    constexpr std::int64_t bytes = std::int64_t{16} << 20;
    const Yardstick copy = backend.large_copy(bytes);
    return 2.0 * static_cast<double>(bytes) / best_of_two(copy.run);
}

}  // namespace

MachineRates probe(Backend& backend, const HeadBlockFormat& format, const Communicator& communicator) {
    const SampleBlocks sample(backend, std::max<std::int64_t>(16, format.head_dim),
                              std::clamp<std::int64_t>(format.hidden, 16, 1024));
    MachineRates rates;
    rates.products = communicator.all_reduce_min(product_rate(backend, format, sample));
    rates.fp64 = communicator.all_reduce_min(fp64_rate(backend, sample));
    rates.copy = communicator.all_reduce_min(copy_rate(backend));
    return rates;
}

double seconds_of(const Work& work, const MachineRates& rates) {
    return static_cast<double>(work.products) / rates.products + static_cast<double>(work.fp64) / rates.fp64;
}

double predicted_seconds(const Plan& plan, std::size_t measure, const MachineRates& rates) {
    double slowest = 0.0;
    for (const RankPlan& rank : plan.ranks) slowest = std::max(slowest, seconds_of(rank.work[measure], rates));
    return slowest;
}

double predicted_seconds(const Plan& plan, const MachineRates& rates) {
    double sum = 0.0;
    for (std::size_t m = 0; m < plan.input.measures.size(); ++m) sum += predicted_seconds(plan, m, rates);
    return sum;
}

}  // namespace geom
