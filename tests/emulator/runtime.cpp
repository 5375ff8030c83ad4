// Device memory, streams and events of the emulated GPU, and the part of the CUDA runtime's interface that the project
// uses. See runtime.hpp for what a stream does.
//
// Device memory lies between guard pages, its end against the one behind it as closely as an alignment of 256 bytes
// lets it; the bytes left over hold a pattern that is checked. It is inaccessible but for the time in which an
// operation of its device runs, so that host code that touches it dies, and new memory holds bytes of 0xff: a NaN in
// every format. Freed memory is never given out again. All of a process's devices have the capacity to themselves.
#include "emulator/runtime.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "emulator/emulator.hpp"

using geom::emulator::fail;
using geom::emulator::Guard;
using geom::emulator::lock;

namespace {

using Clock = std::chrono::steady_clock;

// --- what there is
// -----------------------------------------------------------------------------------------------------

std::int64_t from_environment(const char* name, std::int64_t otherwise) {
    const char* value = std::getenv(name);
    return value == nullptr || *value == 0 ? otherwise : std::atoll(value);
}

}  // namespace

struct Operation {
    const char* name = "";
    std::function<bool()> work;          // true: done
    std::shared_ptr<CUstream_st> other;  // or a wait: for this stream to have done `until` operations
    std::uint64_t until = 0;
};

struct CUstream_st {
    int device = 0;
    bool blocking = false;  // waits for the default stream, and that for it
    bool is_default = false;
    std::deque<Operation> pending;
    std::uint64_t done = 0;
    std::uint64_t issued() const { return done + pending.size(); }
};

struct CUevent_st {
    int device = 0;
    bool timed = true;
    std::shared_ptr<CUstream_st> stream;  // null: never recorded
    std::uint64_t position = 0;
    std::shared_ptr<Clock::time_point> time = std::make_shared<Clock::time_point>();
};

namespace {

struct Allocation {
    std::byte* start = nullptr;
    std::size_t bytes = 0;
    std::byte* pages = nullptr;  // those that may be accessed; one that may not lies on either side
    std::size_t page_bytes = 0;
    bool device = false;
    int owner = 0;
};

struct State {
    std::int64_t devices = from_environment("GEOM_EMULATED_DEVICES", 1);
    std::int64_t capacity = from_environment("GEOM_EMULATED_MEMORY", std::int64_t{4} << 30);
    std::map<const std::byte*, Allocation> allocations;  // by their start
    std::map<int, std::int64_t> used;
    std::int64_t peak = 0;
    int unlocked = 0;  // depth of Unlocked
    std::map<cudaStream_t, std::shared_ptr<CUstream_st>> streams;
    std::map<int, std::shared_ptr<CUstream_st>> default_streams;
    std::vector<std::shared_ptr<CUstream_st>> orphans;  // destroyed with work in them
    std::map<cudaEvent_t, std::unique_ptr<CUevent_st>> events;
    std::map<const void*, int> shared_limits;
    std::map<std::string, std::int64_t, std::less<>> counts;
    const char* running = nullptr;
};

State& state() {
    static State* all = new State;  // never destroyed: handles may be released by other static objects
    return *all;
}

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

// --- memory
// ------------------------------------------------------------------------------------------------------------

constexpr auto poison = std::byte{0xff};
constexpr auto canary = std::byte{0xa5};

std::size_t page_size() {
    static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

const Allocation* find(const void* address) {
    const auto* at = static_cast<const std::byte*>(address);
    auto next = state().allocations.upper_bound(at);
    if (next == state().allocations.begin()) return nullptr;
    const Allocation& before = std::prev(next)->second;
    return at < before.start + before.bytes ? &before : nullptr;
}

bool intact(const Allocation& a) {
    const auto clean = [](const std::byte* from, const std::byte* to) {
        return from == to ||
               (*from == canary && std::memcmp(from, from + 1, static_cast<std::size_t>(to - from) - 1) == 0);
    };
    return clean(a.pages, a.start) && clean(a.start + a.bytes, a.pages + a.page_bytes);
}

void protect(const Allocation& a, int protection) {
    if (mprotect(a.pages, a.page_bytes, protection) != 0) geom::emulator::die("mprotect failed");
}

/// Device memory can be touched while one of these lives. Its bounds are checked at the end.
class Unlocked {
public:
    explicit Unlocked(const char* operation) : operation_(operation) {
        if (state().unlocked++ > 0) return;
        for (const auto& [start, a] : state().allocations) {
            if (a.device) protect(a, PROT_READ | PROT_WRITE);
        }
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked() {
        for (const auto& [start, a] : state().allocations) {
            if (!intact(a)) {
                geom::emulator::die(fmt::format("{} wrote outside an allocation of {} bytes of {} memory", operation_,
                                                a.bytes, a.device ? "device" : "pinned"));
            }
        }
        if (--state().unlocked > 0) return;
        for (const auto& [start, a] : state().allocations) {
            if (a.device) protect(a, PROT_NONE);
        }
    }

private:
    const char* operation_;
};

struct sigaction previous_handler;

/// Says what was touched, then lets the process die as it would have.
void on_fault(int signal, siginfo_t* info, void*) {
    const std::string kernel = geom::emulator::running_kernel();
    const char* who = !kernel.empty() ? kernel.c_str() : state().running != nullptr ? state().running : "host code";
    const auto* at = static_cast<const std::byte*>(info->si_addr);
    std::string what;
    if (geom::emulator::beyond_shared(at)) what = "memory beyond the dynamic shared memory";
    for (const auto& [start, a] : state().allocations) {
        const std::byte* guard = a.pages - page_size();
        if (at < guard || at >= a.pages + a.page_bytes + page_size()) continue;
        what = fmt::format("byte {} of {} of {} memory", at - a.start, a.bytes, a.device ? "device" : "pinned");
    }
    if (what.empty()) what = fmt::format("address {}, no memory of the emulator's", fmt::ptr(at));
    std::fprintf(stderr, "emulated GPU: %s touched %s\n", who, what.c_str());
    sigaction(signal, &previous_handler, nullptr);  // and back to the same instruction
}

void handle_faults() {
    static const bool once = [] {
        struct sigaction action {};
        action.sa_sigaction = &on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        return sigaction(SIGSEGV, &action, &previous_handler) == 0;
    }();
    static_cast<void>(once);
}

cudaError_t allocate(void** out, std::size_t bytes, bool device) {
    if (out == nullptr) return fail(cudaErrorInvalidValue);
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    State& all = state();
    const int owner = device_of_thread;
    if (device && (bytes > static_cast<std::size_t>(all.capacity) ||
                   all.used[owner] + static_cast<std::int64_t>(bytes) > all.capacity)) {
        return fail(cudaErrorMemoryAllocation);
    }
    handle_faults();
    const std::size_t guard = page_size();
    Allocation a;
    a.bytes = bytes;
    a.device = device;
    a.owner = owner;
    a.page_bytes = round_up(bytes, guard);
    const std::size_t map_bytes = a.page_bytes + 2 * guard;
    void* map = mmap(nullptr, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
    a.pages = static_cast<std::byte*>(map) + guard;
    a.start = a.pages + a.page_bytes - round_up(bytes, 256);
    if (bytes >= std::size_t{4} << 20) madvise(a.pages, a.page_bytes, MADV_HUGEPAGE);
    protect(a, PROT_READ | PROT_WRITE);
    std::fill(a.pages, a.start, canary);
    std::memset(a.start, static_cast<int>(poison), bytes);
    std::fill(a.start + bytes, a.pages + a.page_bytes, canary);
    if (device && all.unlocked == 0) protect(a, PROT_NONE);
    all.allocations.emplace(a.start, a);
    if (device) {
        all.used[owner] += static_cast<std::int64_t>(bytes);
        all.peak = std::max(all.peak, geom::emulator::device_bytes());
    }
    *out = a.start;
    return cudaSuccess;
}

// --- streams
// -----------------------------------------------------------------------------------------------------------

std::shared_ptr<CUstream_st> find_stream(cudaStream_t stream) {
    State& all = state();
    if (stream == nullptr || stream == cudaStreamLegacy) {
        auto& found = all.default_streams[device_of_thread];
        if (!found) {
            found = std::make_shared<CUstream_st>();
            found->device = device_of_thread;
            found->is_default = true;
        }
        return found;
    }
    const auto found = all.streams.find(stream);
    return found == all.streams.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<CUstream_st>> all_streams() {
    State& all = state();
    std::erase_if(all.orphans, [](const auto& stream) { return stream->pending.empty(); });
    std::vector<std::shared_ptr<CUstream_st>> found = all.orphans;
    for (const auto& [handle, stream] : all.streams) found.push_back(stream);
    for (const auto& [device, stream] : all.default_streams) found.push_back(stream);
    return found;
}

/// Runs at most one operation: the next one that `stream` needs. False: it is not done yet.
bool step(CUstream_st& stream) {
    State& all = state();
    while (!stream.pending.empty()) {
        Operation& next = stream.pending.front();
        if (next.other && next.other->done < next.until) return step(*next.other);
        if (!next.other) {
            const char* const before = std::exchange(all.running, next.name);
            bool done = false;
            {
                const Unlocked unlocked(next.name);
                done = next.work();
            }
            all.running = before;
            if (!done) return false;
            ++all.counts[next.name];
        }
        const bool was_wait = next.other != nullptr;
        stream.pending.pop_front();
        ++stream.done;
        if (!was_wait) return true;
    }
    return true;
}

void run_until(const std::shared_ptr<CUstream_st>& stream, std::uint64_t position, Guard& guard) {
    while (stream->done < position) {
        if (step(*stream)) continue;
        guard.unlock();
        std::this_thread::sleep_for(std::chrono::microseconds(20));
        guard.lock();
    }
}

void run_all(const std::shared_ptr<CUstream_st>& stream, Guard& guard) { run_until(stream, stream->issued(), guard); }

void run_device(int device, Guard& guard) {
    for (const auto& stream : all_streams()) {
        if (device < 0 || stream->device == device) run_all(stream, guard);
    }
}

void put_wait(CUstream_st& stream, const std::shared_ptr<CUstream_st>& other, std::uint64_t until) {
    if (other->done >= until || other.get() == &stream) return;
    stream.pending.push_back({"wait", {}, other, until});
}

/// The default stream's own rule: it waits for the blocking streams of its device, and they for it.
void order_with_default(CUstream_st& stream) {
    for (const auto& other : all_streams()) {
        if (other->device != stream.device || other.get() == &stream) continue;
        if ((stream.is_default && other->blocking) || (stream.blocking && other->is_default)) {
            put_wait(stream, other, other->issued());
        }
    }
}

cudaError_t put(const std::shared_ptr<CUstream_st>& stream, const char* name, std::function<bool()> work) {
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    order_with_default(*stream);
    stream->pending.push_back({name, std::move(work), nullptr, 0});
    return cudaSuccess;
}

cudaError_t put(const std::shared_ptr<CUstream_st>& stream, const char* name, const std::function<void()>& work) {
    return put(stream, name, std::function<bool()>([work] {
                   work();
                   return true;
               }));
}

// --- copies
// ------------------------------------------------------------------------------------------------------------

/// A matrix of bytes: rows of `width`, `pitch` apart.
struct Rows {
    std::byte* data = nullptr;
    std::size_t pitch = 0;
};

std::size_t extent(std::size_t pitch, std::size_t width, std::size_t rows) { return pitch * (rows - 1) + width; }

void copy_rows(const Rows& to, const Rows& from, std::size_t width, std::size_t rows) {
    for (std::size_t row = 0; row < rows; ++row) {
        std::memmove(to.data + row * to.pitch, from.data + row * from.pitch, width);
    }
}

bool is_device(const void* address) { return geom::emulator::where(address) == geom::emulator::Where::device; }

/// Whether the bytes lie in one allocation where the address is the emulator's; pageable memory is not known.
bool within(const void* address, std::size_t bytes) {
    const Allocation* a = find(address);
    return a == nullptr || static_cast<const std::byte*>(address) + bytes <= a->start + a->bytes;
}

cudaError_t copy(const char* name, const Rows& to, const Rows& from, std::size_t width, std::size_t rows,
                 cudaMemcpyKind kind, cudaStream_t handle, bool blocking) {
    Guard guard = lock();
    const auto stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (width == 0 || rows == 0) return cudaSuccess;
    if (to.pitch < width || from.pitch < width) return fail(cudaErrorInvalidPitchValue);
    if (to.data == nullptr || from.data == nullptr) return fail(cudaErrorInvalidValue);
    if (!within(to.data, extent(to.pitch, width, rows)) || !within(from.data, extent(from.pitch, width, rows))) {
        return fail(cudaErrorInvalidValue);
    }
    const bool from_device = is_device(from.data);
    const bool to_device = is_device(to.data);
    if (kind != cudaMemcpyDefault) {
        const bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
        const bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
        if (says_from != from_device || says_to != to_device) return fail(cudaErrorInvalidValue);
    }
    using geom::emulator::Where;
    const bool pageable_source = geom::emulator::where(from.data) == Where::pageable;
    const bool pageable_target = geom::emulator::where(to.data) == Where::pageable;
    if (pageable_source && to_device) {  // the source's bytes are taken now, as the driver does
        auto taken = std::make_shared<std::vector<std::byte>>(width * rows);
        copy_rows({taken->data(), width}, from, width, rows);
        put(stream, name, [=] { copy_rows(to, {taken->data(), width}, width, rows); });
    } else {
        put(stream, name, [=] { copy_rows(to, from, width, rows); });
        const bool host_only = !from_device && !to_device;
        if (host_only || pageable_target) blocking = true;
    }
    if (blocking && !(from_device && to_device)) run_all(stream, guard);  // between devices nobody waits
    return cudaSuccess;
}

cudaError_t fill(const char* name, void* to, int value, std::size_t bytes, cudaStream_t handle) {
    const Guard guard = lock();
    if (bytes == 0) return cudaSuccess;
    if (!is_device(to) || !within(to, bytes)) return fail(cudaErrorInvalidValue);
    return put(find_stream(handle), name, [=] { std::memset(to, value, bytes); });
}

/// CUDA_VISIBLE_DEVICES as a list of numbers: the devices' indices on the machine.
std::vector<int> visible_devices() {
    const auto there = static_cast<int>(state().devices);
    std::vector<int> found;
    const char* list = std::getenv("CUDA_VISIBLE_DEVICES");
    if (list == nullptr) {
        for (int i = 0; i < there; ++i) found.push_back(i);
        return found;
    }
    while (*list != 0) {
        char* end = nullptr;
        const long index = std::strtol(list, &end, 10);
        if (end == list || index < 0 || index >= there) break;  // what follows an index that is none does not count
        found.push_back(static_cast<int>(index));
        list = *end == ',' ? end + 1 : end;
    }
    return found;
}

bool device_exists(int device) { return device >= 0 && device < static_cast<int>(visible_devices().size()); }

std::string pci_bus_id(int device) {
    return fmt::format("00000000:{:02X}:00.0", 0x10 + visible_devices()[static_cast<std::size_t>(device)]);
}

}  // namespace

// --- runtime.hpp, emulator.hpp
// ------------------------------------------------------------------------------------------

namespace geom::emulator {

void die(const std::string& message) {
    std::fprintf(stderr, "emulated GPU: %s\n", message.c_str());
    std::abort();
}

Guard lock() {
    static auto* mutex = new std::recursive_mutex;
    return Guard(*mutex);
}

cudaError_t fail(cudaError_t error) {
    last_error = error;
    return error;
}

cudaError_t enqueue(cudaStream_t stream, const char* name, std::function<void()> work) {
    const Guard guard = lock();
    return put(find_stream(stream), name, work);
}

cudaError_t enqueue_polled(cudaStream_t stream, const char* name, std::function<bool()> work) {
    const Guard guard = lock();
    return put(find_stream(stream), name, std::move(work));
}

bool stream_exists(cudaStream_t stream) {
    const Guard guard = lock();
    return find_stream(stream) != nullptr;
}

int stream_device(cudaStream_t stream) {
    const Guard guard = lock();
    const auto found = find_stream(stream);
    return found ? found->device : -1;
}

int current_device() { return device_of_thread; }

Where where(const void* address) {
    const Guard guard = lock();
    const Allocation* a = find(address);
    return a == nullptr ? Where::pageable : a->device ? Where::device : Where::pinned;
}

void require_device(const char* who, const char* what, const void* address, std::size_t bytes, bool or_pinned) {
    if (bytes == 0) return;
    const Guard guard = lock();
    const Allocation* a = find(address);
    if (a == nullptr || (!a->device && !or_pinned)) {
        die(fmt::format("{}: {} at {} is not device memory ({})", who, what, address,
                        address == nullptr ? "null"
                        : a == nullptr     ? "of the host, or freed"
                                           : "pinned"));
    }
    const auto left = static_cast<std::size_t>(a->start + a->bytes - static_cast<const std::byte*>(address));
    if (bytes > left) {
        die(fmt::format("{}: {} takes {} bytes and the allocation of {} has {} left there", who, what, bytes, a->bytes,
                        left));
    }
}

std::int64_t device_bytes() {
    const Guard guard = lock();
    std::int64_t sum = 0;
    for (const auto& [device, bytes] : state().used) sum += bytes;
    return sum;
}

std::int64_t peak_device_bytes() {
    const Guard guard = lock();
    return state().peak;
}

std::int64_t operations() {
    const Guard guard = lock();
    std::int64_t sum = 0;
    for (const auto& [name, count] : state().counts) sum += count;
    return sum;
}

std::int64_t operations(std::string_view name) {
    const Guard guard = lock();
    const auto found = state().counts.find(name);
    return found == state().counts.end() ? 0 : found->second;
}

std::int64_t pending_operations() {
    const Guard guard = lock();
    std::int64_t sum = 0;
    for (const auto& stream : all_streams()) sum += static_cast<std::int64_t>(stream->pending.size());
    return sum;
}

void reset() {
    Guard guard = lock();
    run_device(-1, guard);
    State& all = state();
    all.counts.clear();
    all.peak = device_bytes();
    all.devices = from_environment("GEOM_EMULATED_DEVICES", 1);
    all.capacity = from_environment("GEOM_EMULATED_MEMORY", std::int64_t{4} << 30);
}

}  // namespace geom::emulator

// --- the CUDA runtime
// ---------------------------------------------------------------------------------------------------

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "cudaSuccess";
        case cudaErrorInvalidValue:
            return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation:
            return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidConfiguration:
            return "cudaErrorInvalidConfiguration";
        case cudaErrorInvalidPitchValue:
            return "cudaErrorInvalidPitchValue";
        case cudaErrorInvalidDevice:
            return "cudaErrorInvalidDevice";
        case cudaErrorNoDevice:
            return "cudaErrorNoDevice";
        case cudaErrorInvalidResourceHandle:
            return "cudaErrorInvalidResourceHandle";
        case cudaErrorNotReady:
            return "cudaErrorNotReady";
        default:
            return "cudaErrorUnknown";
    }
}
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorInvalidPitchValue:
            return "invalid pitch argument";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorNoDevice:
            return "no CUDA-capable device is detected";
        case cudaErrorInvalidResourceHandle:
            return "invalid resource handle";
        case cudaErrorNotReady:
            return "device not ready";
        default:
            return "unknown error";
    }
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

// Devices

cudaError_t cudaGetDeviceCount(int* count) {
    const Guard guard = lock();
    *count = static_cast<int>(visible_devices().size());
    return *count > 0 ? cudaSuccess : fail(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    device_of_thread = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    *device = device_of_thread;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    const Guard guard = lock();
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    const int index = visible_devices()[static_cast<std::size_t>(device)];
    std::memset(properties, 0, sizeof(*properties));
    std::strcpy(properties->name, "emulated GPU");
    std::memcpy(properties->uuid.bytes, "emulated GPU  ", 15);
    properties->uuid.bytes[15] = static_cast<char>(index);
    properties->totalGlobalMem = static_cast<std::size_t>(state().capacity);
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = 232448;
    properties->sharedMemPerMultiprocessor = 233472;
    properties->reservedSharedMemPerBlock = 1024;
    properties->regsPerBlock = 65536;
    properties->regsPerMultiprocessor = 65536;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->maxBlocksPerMultiProcessor = 32;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->canMapHostMemory = 1;
    properties->unifiedAddressing = 1;
    properties->concurrentKernels = 1;
    properties->asyncEngineCount = 3;
    properties->ECCEnabled = 1;
    properties->l2CacheSize = 50 << 20;
    properties->memoryBusWidth = 5120;
    properties->pciBusID = 0x10 + index;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    const Guard guard = lock();
    cudaDeviceProp properties;
    const cudaError_t status = cudaGetDeviceProperties(&properties, device);
    if (status != cudaSuccess) return status;
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock:
            *value = properties.maxThreadsPerBlock;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlock:
            *value = static_cast<int>(properties.sharedMemPerBlock);
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = static_cast<int>(properties.sharedMemPerBlockOptin);
            break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = static_cast<int>(properties.sharedMemPerMultiprocessor);
            break;
        case cudaDevAttrReservedSharedMemoryPerBlock:
            *value = static_cast<int>(properties.reservedSharedMemPerBlock);
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = properties.multiProcessorCount;
            break;
        case cudaDevAttrMaxThreadsPerMultiProcessor:
            *value = properties.maxThreadsPerMultiProcessor;
            break;
        case cudaDevAttrMaxBlocksPerMultiprocessor:
            *value = properties.maxBlocksPerMultiProcessor;
            break;
        case cudaDevAttrWarpSize:
            *value = properties.warpSize;
            break;
        case cudaDevAttrMaxGridDimX:
            *value = properties.maxGridSize[0];
            break;
        case cudaDevAttrMaxGridDimY:
        case cudaDevAttrMaxGridDimZ:
            *value = properties.maxGridSize[1];
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = properties.major;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = properties.minor;
            break;
        case cudaDevAttrPciBusId:
            *value = properties.pciBusID;
            break;
        case cudaDevAttrPciDeviceId:
        case cudaDevAttrPciDomainId:
            *value = 0;
            break;
        case cudaDevAttrL2CacheSize:
            *value = properties.l2CacheSize;
            break;
        case cudaDevAttrClockRate:
            *value = 1980000;
            break;
        case cudaDevAttrMemoryClockRate:
            *value = 2619000;
            break;
        case cudaDevAttrGlobalMemoryBusWidth:
            *value = properties.memoryBusWidth;
            break;
        case cudaDevAttrUnifiedAddressing:
        case cudaDevAttrCanMapHostMemory:
            *value = 1;
            break;
        case cudaDevAttrHostNumaId:
        case cudaDevAttrPageableMemoryAccess:
        case cudaDevAttrIntegrated:
            *value = 0;
            break;
        default:
            return fail(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
    const Guard guard = lock();
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    if (length < 13) return fail(cudaErrorInvalidValue);
    std::snprintf(id, static_cast<std::size_t>(length), "%s", pci_bus_id(device).c_str());
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    Guard guard = lock();
    run_device(device_of_thread, guard);
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
    const Guard guard = lock();
    if (!device_exists(device) || !device_exists(peer)) return fail(cudaErrorInvalidDevice);
    *can = 0;
    return cudaSuccess;
}

// Memory

cudaError_t cudaMalloc(void** out, std::size_t bytes) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    return allocate(out, bytes, true);
}
cudaError_t cudaMallocHost(void** out, std::size_t bytes) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    return allocate(out, bytes, false);
}
cudaError_t cudaHostAlloc(void** out, std::size_t bytes, unsigned) { return cudaMallocHost(out, bytes); }

static cudaError_t release(void* address, bool device) {
    Guard guard = lock();
    if (address == nullptr) return cudaSuccess;
    State& all = state();
    const auto found = all.allocations.find(static_cast<const std::byte*>(address));
    if (found == all.allocations.end() || found->second.device != device) return fail(cudaErrorInvalidValue);
    run_device(found->second.owner, guard);
    { const Unlocked checks_the_bounds(device ? "something before cudaFree" : "something before cudaFreeHost"); }
    const Allocation a = found->second;
    // The addresses stay taken, so that whoever uses them later dies.
    mmap(a.pages, a.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    all.allocations.erase(found);
    if (device) all.used[a.owner] -= static_cast<std::int64_t>(a.bytes);
    return cudaSuccess;
}
cudaError_t cudaFree(void* address) { return release(address, true); }
cudaError_t cudaFreeHost(void* address) { return release(address, false); }

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    *total = static_cast<std::size_t>(state().capacity);
    *free = static_cast<std::size_t>(std::max<std::int64_t>(0, state().capacity - state().used[device_of_thread]));
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    const Guard guard = lock();
    std::memset(attributes, 0, sizeof(*attributes));
    const Allocation* a = find(address);
    attributes->device = a == nullptr ? cudaInvalidDeviceId : a->owner;
    attributes->type = a == nullptr ? cudaMemoryTypeUnregistered
                       : a->device  ? cudaMemoryTypeDevice
                                    : cudaMemoryTypeHost;
    attributes->devicePointer = a == nullptr ? nullptr : const_cast<void*>(address);
    attributes->hostPointer = a == nullptr || a->device ? nullptr : const_cast<void*>(address);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy("cudaMemcpyAsync", {static_cast<std::byte*>(to), bytes},
                {static_cast<std::byte*>(const_cast<void*>(from)), bytes}, bytes, 1, kind, stream, false);
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return copy("cudaMemcpy", {static_cast<std::byte*>(to), bytes},
                {static_cast<std::byte*>(const_cast<void*>(from)), bytes}, bytes, 1, kind, nullptr, true);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy("cudaMemcpy2DAsync", {static_cast<std::byte*>(to), to_pitch},
                {static_cast<std::byte*>(const_cast<void*>(from)), from_pitch}, width, height, kind, stream, false);
}
cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                         std::size_t height, cudaMemcpyKind kind) {
    return copy("cudaMemcpy2D", {static_cast<std::byte*>(to), to_pitch},
                {static_cast<std::byte*>(const_cast<void*>(from)), from_pitch}, width, height, kind, nullptr, true);
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
    return fill("cudaMemsetAsync", to, value, bytes, stream);
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return fill("cudaMemset", to, value, bytes, nullptr); }

// Streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    if (flags != cudaStreamDefault && flags != cudaStreamNonBlocking) return fail(cudaErrorInvalidValue);
    auto stream = std::make_shared<CUstream_st>();
    stream->device = device_of_thread;
    stream->blocking = flags == cudaStreamDefault;
    *out = stream.get();
    state().streams.emplace(stream.get(), stream);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int) {
    return cudaStreamCreateWithFlags(out, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    const Guard guard = lock();
    const auto found = state().streams.find(handle);
    if (found == state().streams.end()) return fail(cudaErrorInvalidResourceHandle);
    state().orphans.push_back(found->second);  // what lies in it is still done
    state().streams.erase(found);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    Guard guard = lock();
    const auto stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    run_all(stream, guard);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    const Guard guard = lock();
    const auto stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (stream->pending.empty()) return cudaSuccess;
    step(*stream);
    return fail(cudaErrorNotReady);  // and that is what cudaGetLastError says next, as on hardware
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
    const Guard guard = lock();
    return put(find_stream(handle), "cudaLaunchHostFunc", [=] { function(data); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    const Guard guard = lock();
    const auto stream = find_stream(handle);
    const auto found = state().events.find(event);
    if (!stream || found == state().events.end()) return fail(cudaErrorInvalidResourceHandle);
    if (found->second->stream) put_wait(*stream, found->second->stream, found->second->position);
    return cudaSuccess;
}

// Events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
    const Guard guard = lock();
    if (visible_devices().empty()) return fail(cudaErrorNoDevice);
    auto event = std::make_unique<CUevent_st>();
    event->device = device_of_thread;
    event->timed = (flags & cudaEventDisableTiming) == 0;
    *out = event.get();
    state().events.emplace(event.get(), std::move(event));
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Guard guard = lock();
    return state().events.erase(event) == 1 ? cudaSuccess : fail(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    const Guard guard = lock();
    const auto stream = find_stream(handle);
    const auto found = state().events.find(event);
    if (!stream || found == state().events.end() || found->second->device != stream->device) {
        return fail(cudaErrorInvalidResourceHandle);
    }
    auto time = std::make_shared<Clock::time_point>();
    put(stream, "cudaEventRecord", [time] { *time = Clock::now(); });
    found->second->stream = stream;
    found->second->position = stream->issued();
    found->second->time = time;
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    const Guard guard = lock();
    const auto found = state().events.find(event);
    if (found == state().events.end()) return fail(cudaErrorInvalidResourceHandle);
    const CUevent_st& recorded = *found->second;
    if (!recorded.stream || recorded.stream->done >= recorded.position) return cudaSuccess;
    step(*recorded.stream);
    return fail(cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Guard guard = lock();
    const auto found = state().events.find(event);
    if (found == state().events.end()) return fail(cudaErrorInvalidResourceHandle);
    const auto stream = found->second->stream;
    if (stream) run_until(stream, found->second->position, guard);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const Guard guard = lock();
    const auto first = state().events.find(start);
    const auto last = state().events.find(end);
    if (first == state().events.end() || last == state().events.end()) return fail(cudaErrorInvalidResourceHandle);
    for (const CUevent_st* event : {first->second.get(), last->second.get()}) {
        if (!event->stream || !event->timed) return fail(cudaErrorInvalidResourceHandle);
        if (event->stream->done < event->position) return fail(cudaErrorNotReady);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(*last->second->time - *first->second->time).count();
    return cudaSuccess;
}

// Kernels

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
    const Guard guard = lock();
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || value > 232448) return fail(cudaErrorInvalidValue);
        state().shared_limits[function] = value;
    }
    return cudaSuccess;
}

}  // extern "C"

namespace geom::emulator {

cudaError_t launch_kernel(const char* name, const void* function, dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t handle, std::vector<const void*> pointers, std::function<void()> body) {
    const Guard guard = lock();
    const auto stream = find_stream(handle);
    if (!stream || stream->device != device_of_thread) return fail(cudaErrorInvalidResourceHandle);
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64 || grid.x == 0 ||
        grid.y == 0 || grid.z == 0 || grid.x > 2147483647U || grid.y > 65535 || grid.z > 65535) {
        return fail(cudaErrorInvalidConfiguration);
    }
    const auto limit = state().shared_limits.find(function);
    if (shared_bytes > (limit == state().shared_limits.end() ? 48 * 1024 : static_cast<std::size_t>(limit->second))) {
        return fail(cudaErrorInvalidValue);
    }
    return put(stream, name, [=, pointers = std::move(pointers), body = std::move(body)] {
        for (std::size_t i = 0; i < pointers.size(); ++i) {  // null, and the end of an allocation, may be passed along
            const auto* at = static_cast<const std::byte*>(pointers[i]);
            if (at == nullptr || find(at) != nullptr || find(at - 1) != nullptr) continue;
            die(fmt::format("kernel {}: its pointer {} is of the host's memory, or freed", name, i));
        }
        run_kernel(name, grid, block, shared_bytes, body);
    });
}

}  // namespace geom::emulator
