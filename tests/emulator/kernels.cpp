// How the emulated GPU runs a kernel: blocks one after the other, a block's threads as fibers on stacks of their own,
// each until it ends or waits. A warp runs until all of its lanes wait at a barrier of the block; warps and lanes go
// upwards in one phase and downwards in the next. Threads that cannot meet, because others ended or wait elsewhere,
// would hang or compute nonsense on hardware: the process dies and says where they are.
#include <fmt/format.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "emulator/include/kernels/cuda/launch.cuh"
#include "emulator/runtime.hpp"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace {

using geom::emulator::die;
using geom::emulator::Place;

constexpr std::size_t stack_bytes = 64 * 1024;
constexpr int warp = 32;

enum class Doing { runs, waits_for_block, waits_for_warp, ended };

struct Fiber {
    bool started = false;
    ucontext_t first{};
    jmp_buf position{};
    uint3 index{};

    Doing doing = Doing::runs;
    Place place{};             // at which it waits
    std::uint32_t mask = 0;    // the lanes it waits for
    std::uint64_t brings = 0;  // to a shuffle
    int source = 0;            // lane whose value it wants
    std::uint64_t gets = 0;
};

/// The kernel that runs now; there is one at a time.
struct Running {
    std::vector<std::unique_ptr<Fiber>> fibers;  // made when first needed, then kept: 1024 at most
    std::byte* stacks = nullptr;
    jmp_buf scheduler{};
    const std::function<void()>* body = nullptr;
    const char* name = nullptr;
    Fiber* current = nullptr;
    int current_thread = 0;
    int threads = 0;

    std::byte* shared_pages = nullptr;  // a guard page lies behind them
    std::size_t shared_capacity = 0;
    std::byte* shared = nullptr;
};

Running& running() {
    static Running* one = new Running;
    return *one;
}

[[noreturn]] void fiber_main() {
    for (;;) {
        Running& all = running();
        (*all.body)();
        all.current->doing = Doing::ended;
        if (_setjmp(all.current->position) == 0) _longjmp(all.scheduler, 1);
    }
}

void make_fiber(Fiber& fiber, std::size_t number) {
    Running& all = running();
    const auto guard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    if (all.stacks == nullptr) {
        void* map = mmap(nullptr, 1024 * (stack_bytes + guard), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) die("no memory for the stacks of a block");
        all.stacks = static_cast<std::byte*>(map);
    }
    std::byte* stack = all.stacks + number * (stack_bytes + guard);
    if (mprotect(stack, guard, PROT_NONE) != 0) die("mprotect failed");
    getcontext(&fiber.first);  // with the signal mask of this thread
    fiber.first.uc_stack.ss_sp = stack + guard;
    fiber.first.uc_stack.ss_size = stack_bytes;
    fiber.first.uc_link = nullptr;
    makecontext(&fiber.first, reinterpret_cast<void (*)()>(&fiber_main), 0);
}

/// Lets a fiber run until it waits or ends.
[[gnu::noinline]] void resume(int thread) {
    Running& all = running();
    Fiber& fiber = *all.fibers[static_cast<std::size_t>(thread)];
    all.current = &fiber;
    all.current_thread = thread;
    threadIdx = fiber.index;
    if (_setjmp(all.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.position, 1);
    fiber.started = true;
    make_fiber(fiber, static_cast<std::size_t>(thread));
    setcontext(&fiber.first);
}

/// Back to the scheduler, until the others have come.
[[gnu::noinline]] void wait() {
    Running& all = running();
    if (_setjmp(all.current->position) == 0) _longjmp(all.scheduler, 1);
}

Fiber& fiber(int thread) { return *running().fibers[static_cast<std::size_t>(thread)]; }

bool same(const Place& a, const Place& b) {
    return a.line == b.line && std::strcmp(a.what, b.what) == 0 && std::strcmp(a.file, b.file) == 0;
}

std::string describe(const Fiber& one) {
    if (one.doing == Doing::ended) return "ended";
    return fmt::format("wait at {} in {}:{}", one.place.what, one.place.file, one.place.line);
}

[[noreturn]] void diverged() {
    const Running& all = running();
    std::vector<std::pair<std::string, std::vector<int>>> groups;
    for (int thread = 0; thread < all.threads; ++thread) {
        const std::string what = describe(fiber(thread));
        auto found = std::find_if(groups.begin(), groups.end(), [&what](const auto& g) { return g.first == what; });
        if (found == groups.end()) found = groups.insert(found, {what, {}});
        found->second.push_back(thread);
    }
    std::string message =
        fmt::format("kernel {}, block ({}, {}, {}): threads diverged:", all.name, blockIdx.x, blockIdx.y, blockIdx.z);
    for (const auto& [what, threads] : groups) {
        message += fmt::format("\n  {} of {} threads (the first is {}) {}", threads.size(), all.threads,
                               threads.front(), what);
    }
    die(message);
}

/// Lets the lanes of one warp go on that have all come to what they wait for.
bool release_warp(int first) {
    bool any = false;
    const int lanes = std::min(warp, running().threads - first);
    for (int lane = 0; lane < lanes; ++lane) {
        const Fiber& one = fiber(first + lane);
        if (one.doing != Doing::waits_for_warp) continue;
        const std::uint32_t mask = one.mask;
        if ((mask >> lane & 1U) == 0) {
            die(fmt::format("kernel {}: lane {} is not in the mask it names at {} in {}:{}", running().name, lane,
                            one.place.what, one.place.file, one.place.line));
        }
        bool complete = true;
        for (int other = 0; other < warp && complete; ++other) {
            if ((mask >> other & 1U) == 0) continue;
            if (other >= lanes) diverged();  // names a lane that the block does not have
            const Fiber& with = fiber(first + other);
            complete = with.doing == Doing::waits_for_warp && with.mask == mask && same(with.place, one.place);
        }
        if (!complete) continue;
        for (int other = 0; other < warp; ++other) {
            if ((mask >> other & 1U) == 0) continue;
            Fiber& with = fiber(first + other);
            if ((mask >> with.source & 1U) == 0) {
                die(fmt::format("kernel {}: lane {} reads lane {} that is not in the mask at {} in {}:{}",
                                running().name, other, with.source, with.place.what, with.place.file, with.place.line));
            }
            with.gets = fiber(first + with.source).brings;
            with.doing = Doing::runs;
        }
        any = true;
    }
    return any;
}

void run_warp(int first, bool upwards) {
    const int lanes = std::min(warp, running().threads - first);
    do {
        for (int i = 0; i < lanes; ++i) {
            const int thread = first + (upwards ? i : lanes - 1 - i);
            if (fiber(thread).doing == Doing::runs) resume(thread);
        }
    } while (release_warp(first));
}

/// Whether the block goes on: all of its threads have come to one barrier.
bool release_block() {
    const int threads = running().threads;
    int ended = 0;
    for (int thread = 0; thread < threads; ++thread) {
        const Fiber& one = fiber(thread);
        if (one.doing == Doing::ended) {
            ++ended;
            continue;
        }
        if (one.doing != Doing::waits_for_block || !same(one.place, fiber(0).place)) diverged();
    }
    if (ended == threads) return false;
    if (ended > 0) diverged();
    for (int thread = 0; thread < threads; ++thread) fiber(thread).doing = Doing::runs;
    return true;
}

void run_block(bool upwards) {
    const int threads = running().threads;
    const int warps = (threads + warp - 1) / warp;
    for (int thread = 0; thread < threads; ++thread) fiber(thread).doing = Doing::runs;
    do {
        for (int i = 0; i < warps; ++i) run_warp((upwards ? i : warps - 1 - i) * warp, upwards);
        upwards = !upwards;
    } while (release_block());
}

/// Ends at the guard page as closely as an alignment of 16 bytes lets it.
void make_shared_memory(std::size_t bytes) {
    Running& all = running();
    if (all.shared_pages == nullptr) {
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        all.shared_capacity = (std::size_t{geom::emulator::most_shared_bytes} + page - 1) / page * page;
        void* map = mmap(nullptr, all.shared_capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) die("no memory for the shared memory of a block");
        all.shared_pages = static_cast<std::byte*>(map) + page;
        mprotect(all.shared_pages, all.shared_capacity, PROT_READ | PROT_WRITE);
    }
    all.shared = all.shared_pages + all.shared_capacity - (bytes + 15) / 16 * 16;
}

constexpr auto canary = std::byte{0xa5};
constexpr std::size_t before = 1024;  // bytes in front of the shared memory that are checked as well

void mark_shared(std::size_t bytes) {
    Running& all = running();
    std::fill(std::max(all.shared_pages, all.shared - before), all.shared, canary);
    std::memset(all.shared, 0xff, bytes);
    std::fill(all.shared + bytes, all.shared_pages + all.shared_capacity, canary);
}

void check_shared(std::size_t bytes) {
    const Running& all = running();
    const auto clean = [](const std::byte* from, const std::byte* to) {
        return from == to ||
               (*from == canary && std::memcmp(from, from + 1, static_cast<std::size_t>(to - from) - 1) == 0);
    };
    if (!clean(std::max(all.shared_pages, all.shared - before), all.shared) ||
        !clean(all.shared + bytes, all.shared_pages + all.shared_capacity)) {
        die(fmt::format("kernel {}, block ({}, {}, {}) wrote outside its {} bytes of dynamic shared memory", all.name,
                        blockIdx.x, blockIdx.y, blockIdx.z, bytes));
    }
}

}  // namespace

namespace geom::emulator {

void run_kernel(const char* name, const cuda::LaunchShape& shape, const std::function<void()>& body) {
    const dim3 &grid = shape.grid, &block = shape.block;
    Running& all = running();
    all.name = name;
    all.body = &body;
    all.threads = static_cast<int>(block.x * block.y * block.z);
    while (all.fibers.size() < static_cast<std::size_t>(all.threads)) all.fibers.push_back(std::make_unique<Fiber>());
    int thread = 0;
    for (unsigned z = 0; z < block.z; ++z) {
        for (unsigned y = 0; y < block.y; ++y) {
            for (unsigned x = 0; x < block.x; ++x) fiber(thread++).index = {x, y, z};
        }
    }
    blockDim = block;
    gridDim = grid;
    make_shared_memory(shape.shared_bytes);
    std::uint64_t number = 0;
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                mark_shared(shape.shared_bytes);
                run_block(number++ % 2 == 0);
                check_shared(shape.shared_bytes);
            }
        }
    }
    all.name = nullptr;
    all.current = nullptr;
}

std::string running_kernel() {
    const Running& all = running();
    if (all.name == nullptr) return {};
    return fmt::format("kernel {}, block ({}, {}, {}), thread ({}, {}, {})", all.name, blockIdx.x, blockIdx.y,
                       blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
}

bool beyond_shared(const void* address) {
    const Running& all = running();
    const auto* at = static_cast<const std::byte*>(address);
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return all.shared_pages != nullptr && at >= all.shared_pages - page &&
           at < all.shared_pages + all.shared_capacity + page;
}

void* dynamic_shared_memory() { return running().shared; }

int lane() { return running().current_thread % warp; }

void meet_block(const Place& place) {
    Fiber& one = *running().current;
    one.doing = Doing::waits_for_block;
    one.place = place;
    wait();
}

std::uint64_t meet_warp(std::uint32_t mask, std::uint64_t value, int source, const Place& place) {
    Fiber& one = *running().current;
    one.doing = Doing::waits_for_warp;
    one.place = place;
    one.mask = mask;
    one.brings = value;
    one.source = source;
    wait();
    return one.gets;
}

}  // namespace geom::emulator
