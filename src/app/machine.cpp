#include "app/machine.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "core/error.hpp"
#include "core/host_name.hpp"

namespace geom {

namespace {

// A number of kB after "NAME:" in a file of /proc, in bytes; 0 when it is not there.
std::int64_t proc_bytes(const char* file, const std::string& name) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        if (line.rfind(name + ":", 0) == 0) return std::strtoll(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
    }
    return 0;
}

// What the container leaves; the largest number when there is no limit.
std::int64_t container_bytes() {
    std::ifstream limit("/sys/fs/cgroup/memory.max"), used("/sys/fs/cgroup/memory.current");
    std::int64_t most = 0, now = 0;
    if (limit >> most && used >> now) return std::max<std::int64_t>(0, most - now);
    return std::numeric_limits<std::int64_t>::max();
}

cpu_set_t bound_cores() {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (::sched_getaffinity(0, sizeof cores, &cores) != 0) CPU_SET(0, &cores);
    return cores;
}

int default_threads(const Communicator& communicator) {
    if (const char* asked = std::getenv("OMP_NUM_THREADS")) {
        if (const int n = std::atoi(asked); n > 0) return n;
    }
    const cpu_set_t cores = bound_cores();
    const std::string mine = host_name() + std::string(reinterpret_cast<const char*>(&cores), sizeof cores);
    const auto all = communicator.all_gather(mine);
    const auto sharing = static_cast<int>(std::count(all.begin(), all.end(), mine));
    return std::max(1, CPU_COUNT(&cores) / sharing);
}

std::string place_of(const Machine& machine, const std::string& why_none) {
    if (!machine.gpu) return fmt::format("{}, no GPU: {}", machine.host, why_none);
    const std::string node = machine.gpu->numa_node < 0 ? "unknown" : fmt::format("{}", machine.gpu->numa_node);
    return fmt::format("{}, GPU {}: {}, NUMA node {}", machine.host, machine.gpu->index, machine.gpu->name, node);
}

// This rank's GPU, and what the others have. `budget` as asked for, or 0.
void find_gpu(Machine& machine, std::int64_t budget, const Communicator& communicator) {
    VisibleGpus visible = visible_gpus();
    if (!visible.gpus.empty()) {
        machine.gpu = visible.gpus[static_cast<std::size_t>(communicator.node_rank()) % visible.gpus.size()];
        try {
            machine.gpu->free = free_gpu_memory(machine.gpu->index);
        } catch (const Error& error) {  // a card that is there and cannot be used is none
            visible.why_none = error.what();
            machine.gpu.reset();
        }
    }
    machine.places = communicator.all_gather(place_of(machine, visible.why_none));
    machine.gpu_ids = communicator.all_gather(machine.gpu ? machine.gpu->uuid : std::string());
    machine.gpu_cards = communicator.all_gather(machine.gpu ? machine.host + " " + machine.gpu->bus : std::string());
    const std::string& mine = machine.gpu_ids[static_cast<std::size_t>(communicator.rank())];
    const auto sharing = std::count(machine.gpu_ids.begin(), machine.gpu_ids.end(), mine);
    const std::int64_t share = machine.gpu ? machine.gpu->free / sharing : 0;
    const auto offered = static_cast<std::int64_t>(0.8 * static_cast<double>(share));
    machine.device_budget = communicator.all_reduce_min(budget > 0 ? std::min(budget, share) : offered);
}

}  // namespace

std::int64_t peak_resident_bytes() { return proc_bytes("/proc/self/status", "VmHWM"); }
std::int64_t resident_bytes() { return proc_bytes("/proc/self/status", "VmRSS"); }

bool Machine::every_rank_has_gpu() const noexcept {
    return !gpu_ids.empty() && std::find(gpu_ids.begin(), gpu_ids.end(), std::string()) == gpu_ids.end();
}

void check_address_space(int threads) {
    // Of a thread: what OpenBLAS maps for its packed blocks, an arena of malloc, a stack. OpenBLAS asks again without
    // end when it is refused.
    constexpr std::int64_t of_thread = (std::int64_t{128} + 64 + 8) << 20;
    struct rlimit limit {};
    if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    const std::int64_t left = static_cast<std::int64_t>(limit.rlim_cur) - proc_bytes("/proc/self/status", "VmSize");
    if (left >= threads * of_thread) return;
    throw Error(
        ExitCode::usage,
        fmt::format("{} threads take up to {} bytes of address space, and the limit (ulimit -v) leaves {}: raise "
                    "it, or give fewer with --threads",
                    threads, threads * of_thread, std::max<std::int64_t>(0, left)));
}

Machine inspect_machine(const MachineRequest& request, const Communicator& communicator) {
    Machine machine;
    machine.host = host_name();
    const int offered = default_threads(communicator);  // collective: asked by every rank, whatever it was told
    machine.threads = request.threads > 0 ? request.threads : offered;
    machine.isa = static_cast<Isa>(communicator.all_reduce_min(static_cast<std::int64_t>(usable_isa())));
    if (request.gpus) find_gpu(machine, request.budget, communicator);
    machine.resident = communicator.all_reduce_max(resident_bytes());
    const std::int64_t free = std::min(proc_bytes("/proc/meminfo", "MemAvailable"), container_bytes());
    const auto share = static_cast<std::int64_t>(0.8 * static_cast<double>(free) / communicator.node_size());
    machine.budget = communicator.all_reduce_min(request.budget > 0 ? request.budget : share);
    return machine;
}

}  // namespace geom
