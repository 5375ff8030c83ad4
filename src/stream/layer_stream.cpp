#include "stream/layer_stream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr std::int64_t alignment = 64;

std::int64_t aligned(std::int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

Weight wanted_weight(const Checkpoint& checkpoint, const LayerRequest& request, const WeightRequest& wanted) {
    return checkpoint.weight(wanted.family, request.layer, wanted.expert);
}

std::vector<Range> wanted_rows(const WeightRequest& wanted, const Weight& weight) {
    if (wanted.rows.empty()) return {{0, weight.rows}};
    std::int64_t end = 0;
    for (const Range rows : wanted.rows) {
        if (rows.begin < end || rows.empty() || rows.end > weight.rows) {
            throw Error(ExitCode::internal,
                        fmt::format("rows {} to {} of tensor '{}' are asked for after row {}, and it has {}",
                                    rows.begin, rows.end, weight.tensor, end, weight.rows));
        }
        end = rows.end;
    }
    return wanted.rows;
}

std::int64_t memory_bytes(const Weight& weight, Range rows) {
    return rows.size() * weight.cols * size_of(memory_dtype(weight.dtype));
}

}  // namespace

LayerStream::LayerStream(const Checkpoint& checkpoint, Reader& reader, Backend& backend,
                         std::vector<LayerRequest> requests, std::function<void()> idle)
    : checkpoint_(checkpoint), reader_(reader), requests_(std::move(requests)), idle_(std::move(idle)) {
    std::int64_t largest = 0;
    for (const LayerRequest& request : requests_) largest = std::max(largest, buffer_bytes(checkpoint_, request));
    for (std::size_t s = 0; s < std::min<std::size_t>(2, requests_.size()); ++s)
        slots_[s].buffer = backend.input_buffer(largest);
    thread_ = std::thread([this] { run(); });
}

LayerStream::~LayerStream() {
    {
        const std::lock_guard lock(mutex_);
        quit_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

std::int64_t LayerStream::buffer_bytes(const Checkpoint& checkpoint, const LayerRequest& request) {
    std::int64_t bytes = 0;
    for (const WeightRequest& wanted : request.weights) {
        const Weight weight = wanted_weight(checkpoint, request, wanted);
        for (const Range rows : wanted_rows(wanted, weight)) bytes += aligned(memory_bytes(weight, rows));
    }
    return bytes;
}

const LayerWeights* LayerStream::next() {
    std::unique_lock lock(mutex_);
    if (given_ > 0) {
        slots_[(given_ - 1) % 2].buffer->release();
        slots_[(given_ - 1) % 2].full = false;
        changed_.notify_all();
    }
    if (given_ == requests_.size()) return nullptr;
    Slot& slot = slots_[given_ % 2];
    while (!changed_.wait_for(lock, std::chrono::milliseconds(100), [&] { return slot.full || failure_; })) {
        lock.unlock();
        if (idle_) idle_();
        lock.lock();
    }
    if (!slot.full) std::rethrow_exception(failure_);
    ++given_;
    slot.buffer->receive();
    return &slot.weights;
}

void LayerStream::run() {
    for (std::size_t i = 0; i < requests_.size(); ++i) {
        Slot& slot = slots_[i % 2];
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [&] { return quit_ || !slot.full; });
            if (quit_) return;
        }
        std::exception_ptr failure;
        try {
            fill(slot, requests_[i]);
        } catch (...) {
            failure = std::current_exception();
        }
        {
            const std::lock_guard lock(mutex_);
            failure_ = failure;
            slot.full = !failure;
        }
        changed_.notify_all();
        if (failure) return;
    }
}

void LayerStream::fill(Slot& slot, const LayerRequest& request) {
    slot.weights = LayerWeights();
    slot.weights.layer_ = request.layer;
    slot.sources.clear();
    for (const WeightRequest& wanted : request.weights) {
        slot.sources.push_back(wanted_weight(checkpoint_, request, wanted));
    }
    std::vector<ReadJob> jobs;
    std::int64_t at = 0;  // in the buffer
    slot.buffer->wait_sent();
    for (std::size_t w = 0; w < request.weights.size(); ++w) {
        const Weight& weight = slot.sources[w];
        const WeightRequest& wanted = request.weights[w];
        for (const Range rows : wanted_rows(wanted, weight)) {
            jobs.push_back({&weight, rows, slot.buffer->host() + at, request.repeated});
            slot.weights.parts_.push_back({wanted.family, wanted.expert, memory_dtype(weight.dtype), rows, weight.rows,
                                           weight.cols, slot.buffer->data() + at});
            at += aligned(memory_bytes(weight, rows));
        }
    }
    reader_.read(jobs);
    slot.buffer->send(at);
}

}  // namespace geom
