// Device and pinned memory. It lies between guard pages, its end against the one behind it as closely as an alignment
// of 256 bytes lets it; the bytes left over hold a pattern that is checked. Device memory is inaccessible but for the
// time in which an operation runs, so that host code that touches it dies, and new memory holds bytes of 0xff: a NaN in
// every format. Freed memory is never given out again. Every device has the capacity to itself.
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>

#include "emulator/emulator.hpp"
#include "emulator/runtime.hpp"

using geom::emulator::fail;
using geom::emulator::Guard;
using geom::emulator::lock;

namespace {

struct Allocation {
    std::byte* start = nullptr;
    std::size_t bytes = 0;
    std::byte* pages = nullptr;  // those that may be accessed; one that may not lies on either side
    std::size_t page_bytes = 0;
    bool device = false;
    int owner = 0;
};

struct Memory {
    std::map<const std::byte*, Allocation> allocations;  // by their start
    std::map<int, std::int64_t> used;                    // by device
    std::int64_t peak = 0;
    std::int64_t calls = 0;
    int unlocked = 0;  // depth of Unlocked
};

Memory& memory() {
    static auto* all = new Memory;  // never destroyed: static objects may own some of it
    return *all;
}

constexpr auto poison = std::byte{0xff};
constexpr auto canary = std::byte{0xa5};

std::size_t page_size() {
    static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

const Allocation* find(const void* address) {
    const auto* at = static_cast<const std::byte*>(address);
    auto next = memory().allocations.upper_bound(at);
    if (next == memory().allocations.begin()) return nullptr;
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

struct sigaction previous_handler;

/// Says what was touched, then lets the process die as it would have.
void on_fault(int signal, siginfo_t* info, void*) {
    const std::string kernel = geom::emulator::running_kernel();
    const char* operation = geom::emulator::running_operation();
    const char* who = !kernel.empty() ? kernel.c_str() : operation != nullptr ? operation : "host code";
    const auto* at = static_cast<const std::byte*>(info->si_addr);
    std::string what;
    if (geom::emulator::beyond_shared(at)) what = "memory beyond the dynamic shared memory";
    for (const auto& [start, a] : memory().allocations) {
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

/// Pages for `bytes`, between guards and filled; start is null when there are none.
Allocation map_pages(std::size_t bytes, bool device) {
    handle_faults();
    const std::size_t guard = page_size();
    Allocation a;
    a.bytes = bytes;
    a.device = device;
    a.owner = geom::emulator::current_device();
    a.page_bytes = round_up(bytes, guard);
    const std::size_t map_bytes = a.page_bytes + 2 * guard;
    void* map = mmap(nullptr, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return a;
    a.pages = static_cast<std::byte*>(map) + guard;
    a.start = a.pages + a.page_bytes - round_up(bytes, 256);
    if (bytes >= std::size_t{4} << 20) madvise(a.pages, a.page_bytes, MADV_HUGEPAGE);
    protect(a, PROT_READ | PROT_WRITE);
    std::fill(a.pages, a.start, canary);
    std::memset(a.start, static_cast<int>(poison), bytes);
    std::fill(a.start + bytes, a.pages + a.page_bytes, canary);
    if (device && memory().unlocked == 0) protect(a, PROT_NONE);
    return a;
}

cudaError_t allocate(void** out, std::size_t bytes, bool device) {
    const Guard guard = lock();
    ++memory().calls;
    if (!geom::emulator::any_device()) return fail(cudaErrorNoDevice);
    if (out == nullptr) return fail(cudaErrorInvalidValue);
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    const std::int64_t left = geom::emulator::capacity() - geom::emulator::used_bytes(geom::emulator::current_device());
    if (device && static_cast<std::int64_t>(bytes) > left) return fail(cudaErrorMemoryAllocation);
    const Allocation a = map_pages(bytes, device);
    if (a.start == nullptr) return fail(cudaErrorMemoryAllocation);
    memory().allocations.emplace(a.start, a);
    if (device) {
        memory().used[a.owner] += static_cast<std::int64_t>(bytes);
        memory().peak = std::max(memory().peak, geom::emulator::device_bytes());
    }
    *out = a.start;
    return cudaSuccess;
}

cudaError_t release(void* address, bool device) {
    Guard guard = lock();
    ++memory().calls;
    if (address == nullptr) return cudaSuccess;
    const auto found = memory().allocations.find(static_cast<const std::byte*>(address));
    if (found == memory().allocations.end() || found->second.device != device) return fail(cudaErrorInvalidValue);
    const Allocation a = found->second;
    geom::emulator::finish_device(a.owner, guard);
    {
        const geom::emulator::Unlocked checks_the_bounds(device ? "something before cudaFree"
                                                                : "something before cudaFreeHost");
    }
    // The addresses stay taken, so that whoever uses them later dies.
    mmap(a.pages, a.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    memory().allocations.erase(a.start);
    if (device) memory().used[a.owner] -= static_cast<std::int64_t>(a.bytes);
    return cudaSuccess;
}

}  // namespace

namespace geom::emulator {

Unlocked::Unlocked(const char* operation) : operation_(operation) {
    if (memory().unlocked++ > 0) return;
    for (const auto& [start, a] : memory().allocations) {
        if (a.device) protect(a, PROT_READ | PROT_WRITE);
    }
}

Unlocked::~Unlocked() {
    for (const auto& [start, a] : memory().allocations) {
        if (!intact(a)) {
            die(fmt::format("{} wrote outside an allocation of {} bytes of {} memory", operation_, a.bytes,
                            a.device ? "device" : "pinned"));
        }
    }
    if (--memory().unlocked > 0) return;
    for (const auto& [start, a] : memory().allocations) {
        if (a.device) protect(a, PROT_NONE);
    }
}

Where where(const void* address) {
    const Guard guard = lock();
    const Allocation* a = find(address);
    return a == nullptr ? Where::pageable : a->device ? Where::device : Where::pinned;
}

std::int64_t bytes_left(const void* address) {
    const Guard guard = lock();
    const Allocation* a = find(address);
    return a == nullptr ? -1 : a->start + a->bytes - static_cast<const std::byte*>(address);
}

void require_device(const char* who, const char* what, const void* address, std::size_t bytes) {
    if (bytes == 0) return;
    const Guard guard = lock();
    const Allocation* a = find(address);
    if (a == nullptr || !a->device) {
        die(fmt::format("{}: {} at {} is not device memory ({})", who, what, address,
                        address == nullptr ? "null"
                        : a == nullptr     ? "of the host, or freed"
                                           : "pinned"));
    }
    const std::int64_t left = bytes_left(address);
    if (static_cast<std::int64_t>(bytes) > left) {
        die(fmt::format("{}: {} takes {} bytes and the allocation of {} has {} left there", who, what, bytes, a->bytes,
                        left));
    }
}

std::int64_t capacity() { return from_environment("GEOM_EMULATED_MEMORY", std::int64_t{4} << 30); }

std::int64_t used_bytes(int device) {
    const Guard guard = lock();
    return memory().used[device];
}

std::int64_t device_bytes() {
    const Guard guard = lock();
    std::int64_t sum = 0;
    for (const auto& [device, bytes] : memory().used) sum += bytes;
    return sum;
}

std::int64_t peak_device_bytes() {
    const Guard guard = lock();
    return memory().peak;
}

void forget_peak() {
    const Guard guard = lock();
    memory().peak = device_bytes();
}

std::int64_t memory_calls() {
    const Guard guard = lock();
    return memory().calls;
}

}  // namespace geom::emulator

extern "C" {

cudaError_t cudaMalloc(void** out, std::size_t bytes) { return allocate(out, bytes, true); }
cudaError_t cudaMallocHost(void** out, std::size_t bytes) { return allocate(out, bytes, false); }
cudaError_t cudaFree(void* address) { return release(address, true); }
cudaError_t cudaFreeHost(void* address) { return release(address, false); }

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const Guard guard = lock();
    if (!geom::emulator::any_device()) return fail(cudaErrorNoDevice);
    const std::int64_t all = geom::emulator::capacity();
    const std::int64_t used = geom::emulator::used_bytes(geom::emulator::current_device());
    *total = static_cast<std::size_t>(all);
    *free = static_cast<std::size_t>(std::max<std::int64_t>(0, all - used));
    return cudaSuccess;
}

}  // extern "C"
