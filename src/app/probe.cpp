#include "app/probe.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace geom {

namespace {

template <class F>
double seconds_of(F&& f) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    return std::max(1e-9, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

// Amounts per second of `work`, which does a piece n times and returns the amount of one: once for libraries to settle,
// then as often as it takes to be told from noise.
template <class F>
double rate_of(F&& work) {
    constexpr double long_enough = 4e-3;
    work(1);
    for (std::int64_t n = 1;; n *= 4) {
        double amount = 0.0;
        const double seconds = seconds_of([&] { amount = static_cast<double>(n) * work(n); });
        if (seconds > long_enough || n >= 256) return amount / seconds;
    }
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

// tile_dots as gram calls it, on as few layers as keep all threads busy.
double product_rate(Backend& backend, const HeadBlockFormat& of_run, const SampleBlocks& sample) {
    const auto threads = static_cast<double>(backend.workers().size());
    const std::int64_t layers = backend.on_device() ? 16 : 2 * std::llround(std::ceil(2.0 * std::sqrt(threads)));
    const MatrixRef& block = sample.block;
    const HeadBlockFormat format = backend.head_products().format(of_run.dtype, block.rows, block.cols);
    const Buffer blocks = backend.allocate(2 * layers * format.bytes);
    const std::vector<MatrixRef> stored(static_cast<std::size_t>(2 * layers), block);
    std::vector<std::byte*> packed;
    for (std::int64_t i = 0; i < 2 * layers; ++i) packed.push_back(blocks.data() + i * format.bytes);
    backend.head_products().pack(stored, format, packed);
    std::vector<double> dots(static_cast<std::size_t>(layers * layers));
    const KvGroupBlocks group{layers, 1, blocks.data(), blocks.data() + layers * format.bytes};
    const double rate = rate_of([&](std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) backend.head_products().tile_dots(group, format, dots);
        return static_cast<double>(layers * (layers + 1) * 2 * block.rows * block.rows * block.cols);
    });
    backend.head_products().end_products();
    return rate;
}

// Gram matrices of head blocks in fp64, as heads forms them.
double fp64_rate(Backend& backend, const SampleBlocks& sample) {
    DenseBatch& dense = backend.dense();
    const std::int64_t rows = sample.block.rows, count = backend.on_device() ? 64 : 2 * backend.workers().size();
    const Buffer memory = dense.allocate(count * 4 * rows * rows * 8);
    Batch grams{{}, 2 * rows, 2 * rows, 2 * rows};
    for (std::int64_t i = 0; i < count; ++i) grams.at.push_back(memory.as<double>() + i * 4 * rows * rows);
    const std::vector<MatrixRef> blocks(static_cast<std::size_t>(count), sample.block);
    return rate_of([&](std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) dense.stacked_grams(blocks, blocks, grams);
        backend.queue().wait();
        return static_cast<double>(count * 4 * rows * rows * sample.block.cols);
    });
}

double copy_rate(Backend& backend) {
    constexpr std::int64_t bytes = std::int64_t{16} << 20;
    const Yardstick copy = backend.large_copy(bytes);
    return rate_of([&](std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) copy.run();
        return 2.0 * static_cast<double>(bytes);
    });
}

}  // namespace

MachineRates probe(Backend& backend, const HeadBlockFormat& format, const Communicator& communicator) {
    MachineRates rates;
    const double took = seconds_of([&] {
        const std::int64_t rows = std::max<std::int64_t>(16, format.head_dim);
        const std::int64_t most = (std::int64_t{1} << (backend.on_device() ? 20 : 16)) / rows;
        const SampleBlocks sample(backend, rows, std::clamp<std::int64_t>(format.hidden, 16, most));
        rates.products = communicator.all_reduce_min(product_rate(backend, format, sample));
        rates.fp64 = communicator.all_reduce_min(fp64_rate(backend, sample));
        rates.copy = communicator.all_reduce_min(copy_rate(backend));
    });
    rates.took = communicator.all_reduce_max(took);
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
