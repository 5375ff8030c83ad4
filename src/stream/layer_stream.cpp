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

std::size_t checked_slots(std::int64_t slots) {
    if (slots < 2) throw Error(ExitCode::internal, fmt::format("a stream of layers has {} slots, and needs 2", slots));
    return static_cast<std::size_t>(slots);
}

}  // namespace

LayerStream::LayerStream(std::vector<StreamSource> sources, Backend& backend, std::vector<LayerRequest> requests,
                         std::int64_t slots, std::function<void()> idle)
    : sources_(std::move(sources)),
      backend_(backend),
      most_slots_(checked_slots(slots)),
      slot_bytes_(largest_of(requests)),
      idle_(std::move(idle)) {
    begin(std::move(requests));
    thread_ = std::thread([this] { run(); });  // last: what throws before leaves no thread behind
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

const StreamSource& LayerStream::source_of(const LayerRequest& request) const {
    if (request.checkpoint < 0 || request.checkpoint >= std::ssize(sources_)) {
        throw Error(ExitCode::internal, fmt::format("a layer of checkpoint {} is asked for, and there are {}",
                                                    request.checkpoint, sources_.size()));
    }
    return sources_[static_cast<std::size_t>(request.checkpoint)];
}

std::int64_t LayerStream::largest_of(const std::vector<LayerRequest>& requests) const {
    std::int64_t largest = 0;
    for (const LayerRequest& request : requests)
        largest = std::max(largest, buffer_bytes(*source_of(request).checkpoint, request));
    return largest;
}

void LayerStream::restart(std::vector<LayerRequest> requests) {
    if (const std::int64_t bytes = largest_of(requests); bytes > slot_bytes_) {
        throw Error(ExitCode::internal, fmt::format("a layer of {} bytes does not fit into a stream made for layers of "
                                                    "{} bytes at most",
                                                    bytes, slot_bytes_));
    }
    {
        const std::lock_guard lock(mutex_);
        begin(std::move(requests));
    }
    changed_.notify_all();
}

void LayerStream::begin(std::vector<LayerRequest> requests) {
    std::vector<Slot*> places;
    places.reserve(requests.size());
    while (slots_.size() < std::min(most_slots_, requests.size())) {
        auto slot = std::make_unique<Slot>();
        slot->buffer = backend_.input_buffer(slot_bytes_);
        slots_.push_back(std::move(slot));
    }
    for (; given_back_ < given_; ++given_back_) places_[given_back_]->buffer->release();
    requests_ = std::move(requests);
    places_ = std::move(places);
    given_ = 0;
    given_back_ = 0;
    ++beginnings_;
    failure_ = nullptr;
}

const LayerWeights* LayerStream::next() {
    std::unique_lock lock(mutex_);
    if (given_ == requests_.size()) return nullptr;
    for (; given_back_ + most_slots_ < given_ + 2; ++given_back_) places_[given_back_]->buffer->release();
    changed_.notify_all();
    while (
        !changed_.wait_for(lock, std::chrono::milliseconds(100), [&] { return places_.size() > given_ || failure_; })) {
        lock.unlock();
        if (idle_) idle_();
        lock.lock();
    }
    if (places_.size() == given_) std::rethrow_exception(failure_);
    Slot& slot = *places_[given_++];
    slot.buffer->receive();
    return &slot.weights;
}

const LayerWeights* LayerStream::previous(std::int64_t back) const {
    const std::lock_guard lock(mutex_);
    const std::int64_t at = static_cast<std::int64_t>(given_) - 1 - back;
    if (back < 0 || at < static_cast<std::int64_t>(given_back_)) return nullptr;
    return &places_[static_cast<std::size_t>(at)]->weights;
}

void LayerStream::run() {
    std::unique_lock lock(mutex_);
    while (!quit_) {
        const bool wanted = !failure_ && places_.size() < requests_.size();
        if (Slot* held = wanted ? holder_of(requests_[places_.size()]) : nullptr) {
            places_.push_back(held);  // reserved
            changed_.notify_all();
        } else if (Slot* free = wanted ? replaceable() : nullptr) {
            read_into(*free, lock);
        } else {
            changed_.wait(lock);
        }
    }
}

LayerStream::Slot* LayerStream::holder_of(const LayerRequest& request) const {
    for (const auto& slot : slots_) {
        if (slot->full && slot->request == request) return slot.get();
    }
    return nullptr;
}

// Of the slots that hold nothing readable and nothing to be handed out next, the one whose layer is asked for last.
LayerStream::Slot* LayerStream::replaceable() const {
    Slot* best = nullptr;
    std::size_t best_use = 0;
    for (const auto& slot : slots_) {
        const auto in_use = places_.begin() + static_cast<std::ptrdiff_t>(given_back_);
        if (std::find(in_use, places_.end(), slot.get()) != places_.end()) continue;
        const std::size_t use = next_use(*slot);
        if (best != nullptr && use <= best_use) continue;
        best = slot.get();
        best_use = use;
    }
    return best;
}

// Empty slots come after all requests, and before them slots whose layer nobody asks for.
std::size_t LayerStream::next_use(const Slot& slot) const {
    if (!slot.full) return requests_.size() + 1;
    const auto rest = requests_.begin() + static_cast<std::ptrdiff_t>(places_.size());
    return static_cast<std::size_t>(std::find(rest, requests_.end(), slot.request) - requests_.begin());
}

void LayerStream::read_into(Slot& slot, std::unique_lock<std::mutex>& lock) {
    const std::uint64_t beginning = beginnings_;
    std::exception_ptr failure;
    slot.full = false;
    try {
        slot.request = requests_[places_.size()];
        lock.unlock();
        fill(slot);
    } catch (...) {
        failure = std::current_exception();
    }
    if (!lock.owns_lock()) lock.lock();
    slot.full = !failure;
    if (!failure || beginning != beginnings_) return;  // begun anew, the layer may not be asked for any more
    failure_ = failure;
    changed_.notify_all();
}

void LayerStream::fill(Slot& slot) const {
    const LayerRequest& request = slot.request;
    const StreamSource& source = source_of(request);
    std::vector<Weight> weights;
    for (const WeightRequest& wanted : request.weights)
        weights.push_back(wanted_weight(*source.checkpoint, request, wanted));
    slot.weights = LayerWeights();
    slot.weights.layer_ = request.layer;
    std::vector<ReadJob> jobs;
    std::int64_t at = 0;  // in the buffer
    slot.buffer->wait_sent();
    for (std::size_t w = 0; w < weights.size(); ++w) {
        const Weight& weight = weights[w];
        const WeightRequest& wanted = request.weights[w];
        for (const Range rows : wanted_rows(wanted, weight)) {
            std::vector<std::int16_t> exponents(static_cast<std::size_t>(rows.size()), exponent_of_zero);
            jobs.push_back({&weight, rows, slot.buffer->host() + at, wanted.repeated, exponents.data()});
            slot.weights.parts_.push_back({wanted.family, wanted.expert, memory_dtype(weight.dtype), rows, weight.rows,
                                           weight.cols, slot.buffer->data() + at, weight.tensor, weight.first_row,
                                           std::move(exponents)});
            at += aligned(memory_bytes(weight, rows));
        }
    }
    source.reader->read(jobs);
    slot.buffer->send(at);
}

}  // namespace geom
