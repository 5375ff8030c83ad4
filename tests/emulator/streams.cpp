// Streams, events, and the copies and fills that are put into streams. See runtime.hpp for what a stream does.
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "emulator/emulator.hpp"
#include "emulator/runtime.hpp"

using geom::emulator::fail;
using geom::emulator::Guard;
using geom::emulator::lock;
using geom::emulator::Where;

struct Operation {
    const char* name = "";
    std::function<bool()> work;          // true: done
    std::shared_ptr<CUstream_st> other;  // or a wait: for this stream to have done `until` operations
    std::uint64_t until = 0;
};

struct CUstream_st {
    int device = 0;
    std::deque<Operation> pending;
    std::uint64_t done = 0;
    std::uint64_t issued() const { return done + pending.size(); }
};

struct CUevent_st {
    int device = 0;
    std::shared_ptr<CUstream_st> stream;  // null: never recorded
    std::uint64_t position = 0;           // the operations of the stream that it stands behind
};

namespace {

using SharedStream = std::shared_ptr<CUstream_st>;

struct Streams {
    std::map<cudaStream_t, SharedStream> streams;
    std::vector<SharedStream> orphans;  // destroyed with work in them
    std::map<cudaEvent_t, std::unique_ptr<CUevent_st>> events;
    const char* running = nullptr;
};

Streams& all() {
    static auto* one = new Streams;  // never destroyed: static objects may own handles
    return *one;
}

SharedStream find(cudaStream_t stream) {
    const auto found = all().streams.find(stream);
    return found == all().streams.end() ? nullptr : found->second;
}

CUevent_st* find(cudaEvent_t event) {
    const auto found = all().events.find(event);
    return found == all().events.end() ? nullptr : found->second.get();
}

std::vector<SharedStream> all_streams() {
    std::erase_if(all().orphans, [](const auto& stream) { return stream->pending.empty(); });
    std::vector<SharedStream> found = all().orphans;
    for (const auto& [handle, stream] : all().streams) found.push_back(stream);
    return found;
}

/// Runs at most one operation: the next one that `stream` needs. False: it is not done yet.
bool step(CUstream_st& stream) {
    while (!stream.pending.empty()) {
        Operation& next = stream.pending.front();
        if (next.other && next.other->done < next.until) return step(*next.other);
        if (!next.other) {
            const char* const before = std::exchange(all().running, next.name);
            bool done = false;
            {
                const geom::emulator::Unlocked unlocked(next.name);
                done = next.work();
            }
            all().running = before;
            if (!done) return false;
        }
        const bool was_wait = next.other != nullptr;
        stream.pending.pop_front();
        ++stream.done;
        if (!was_wait) return true;
    }
    return true;
}

void finish(const SharedStream& stream, Guard& guard) {
    const std::uint64_t position = stream->issued();
    while (stream->done < position) {
        if (step(*stream)) continue;
        guard.unlock();
        std::this_thread::sleep_for(std::chrono::microseconds(20));
        guard.lock();
    }
}

/// Whether the bytes lie in one allocation where the address is the emulator's; pageable memory is not known.
bool within(const void* address, std::size_t bytes) {
    const std::int64_t left = geom::emulator::bytes_left(address);
    return left < 0 || static_cast<std::int64_t>(bytes) <= left;
}

bool kind_holds(cudaMemcpyKind kind, Where to, Where from) {
    if (kind == cudaMemcpyDefault) return true;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    return from_device == (from == Where::device) && to_device == (to == Where::device);
}

}  // namespace

namespace geom::emulator {

cudaError_t enqueue_polled(cudaStream_t handle, const char* name, std::function<bool()> work) {
    const Guard guard = lock();
    const SharedStream stream = find(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    stream->pending.push_back({name, std::move(work), nullptr, 0});
    return cudaSuccess;
}

cudaError_t enqueue(cudaStream_t stream, const char* name, const std::function<void()>& work) {
    return enqueue_polled(stream, name, [work] {
        work();
        return true;
    });
}

int stream_device(cudaStream_t handle) {
    const Guard guard = lock();
    const SharedStream stream = find(handle);
    return stream ? stream->device : -1;
}

void finish_device(int device, Guard& guard) {
    for (const SharedStream& stream : all_streams()) {
        if (stream->device == device) ::finish(stream, guard);
    }
}

void finish_all() {
    Guard guard = lock();
    for (const SharedStream& stream : all_streams()) ::finish(stream, guard);
}

const char* running_operation() { return all().running; }

std::int64_t pending_operations() {
    const Guard guard = lock();
    std::int64_t sum = 0;
    for (const SharedStream& stream : all_streams()) sum += static_cast<std::int64_t>(stream->pending.size());
    return sum;
}

}  // namespace geom::emulator

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
    const Guard guard = lock();
    if (!geom::emulator::any_device()) return fail(cudaErrorNoDevice);
    if (flags != cudaStreamNonBlocking) geom::emulator::die("streams that wait for the default stream: there is none");
    auto stream = std::make_shared<CUstream_st>();
    stream->device = geom::emulator::current_device();
    *out = stream.get();
    all().streams.emplace(stream.get(), stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    const Guard guard = lock();
    const SharedStream stream = find(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    all().orphans.push_back(stream);  // what lies in it is still done
    all().streams.erase(handle);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    const Guard guard = lock();
    const SharedStream stream = find(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (stream->pending.empty()) return cudaSuccess;
    step(*stream);
    return fail(cudaErrorNotReady);  // and that is what cudaGetLastError says next, as on hardware
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    const Guard guard = lock();
    const SharedStream stream = find(handle);
    const CUevent_st* awaited = find(event);
    if (!stream || awaited == nullptr) return fail(cudaErrorInvalidResourceHandle);
    const SharedStream& other = awaited->stream;
    if (!other || other == stream || other->done >= awaited->position) return cudaSuccess;
    stream->pending.push_back({"wait", {}, other, awaited->position});
    return cudaSuccess;
}

/// Events keep no time.
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
    const Guard guard = lock();
    if (!geom::emulator::any_device()) return fail(cudaErrorNoDevice);
    if (flags != cudaEventDisableTiming) return fail(cudaErrorInvalidValue);
    auto event = std::make_unique<CUevent_st>();
    event->device = geom::emulator::current_device();
    *out = event.get();
    all().events.emplace(event.get(), std::move(event));
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Guard guard = lock();
    return all().events.erase(event) == 1 ? cudaSuccess : fail(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    const Guard guard = lock();
    const SharedStream stream = find(handle);
    CUevent_st* recorded = find(event);
    if (!stream || recorded == nullptr || recorded->device != stream->device) {
        return fail(cudaErrorInvalidResourceHandle);
    }
    recorded->stream = stream;
    recorded->position = stream->issued();
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    const Guard guard = lock();
    const CUevent_st* recorded = find(event);
    if (recorded == nullptr) return fail(cudaErrorInvalidResourceHandle);
    if (!recorded->stream || recorded->stream->done >= recorded->position) return cudaSuccess;
    step(*recorded->stream);
    return fail(cudaErrorNotReady);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t handle) {
    const char* const name = "cudaMemcpyAsync";
    Guard guard = lock();
    const SharedStream stream = find(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (to == nullptr || from == nullptr) return fail(cudaErrorInvalidValue);  // also of no bytes
    if (bytes == 0) return cudaSuccess;
    const Where source = geom::emulator::where(from), target = geom::emulator::where(to);
    if (!within(to, bytes) || !within(from, bytes) || !kind_holds(kind, target, source)) {
        return fail(cudaErrorInvalidValue);
    }
    if (source == Where::pageable && target == Where::device) {  // the bytes are taken now, as the driver does
        const auto* first = static_cast<const std::byte*>(from);
        const auto taken = std::make_shared<std::vector<std::byte>>(first, first + bytes);
        return geom::emulator::enqueue(handle, name, [=] { std::memcpy(to, taken->data(), bytes); });
    }
    geom::emulator::enqueue(handle, name, [=] { std::memmove(to, from, bytes); });
    const bool host_only = source != Where::device && target != Where::device;
    if (host_only || target == Where::pageable) finish(stream, guard);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
    const Guard guard = lock();
    if (bytes == 0) return cudaSuccess;
    if (geom::emulator::where(to) != Where::device || !within(to, bytes)) return fail(cudaErrorInvalidValue);
    return geom::emulator::enqueue(stream, "cudaMemsetAsync", [=] { std::memset(to, value, bytes); });
}

}  // extern "C"
