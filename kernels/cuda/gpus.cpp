// What the CUDA runtime says of the machine's GPUs.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/gpu.hpp"

namespace geom {

namespace {

using cuda::check_cuda;

// "GPU-8c1f...", as nvidia-smi writes it.
std::string uuid_text(const cudaUUID_t& uuid) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text = "GPU-";
    for (int i = 0; i < 16; ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
        const auto byte = static_cast<unsigned char>(uuid.bytes[i]);
        text += digits[byte / 16];
        text += digits[byte % 16];
    }
    return text;
}

// As Linux writes it: "0000:3b:00.0".
std::string bus_of(int index) {
    char bus[32] = {};
    check_cuda(cudaDeviceGetPCIBusId(bus, sizeof bus, index), "cudaDeviceGetPCIBusId");
    std::string name = bus;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name;
}

// Linux knows which processor a card is next to.
int numa_node_of(const std::string& bus) {
    int node = -1;
    std::ifstream("/sys/bus/pci/devices/" + bus + "/numa_node") >> node;
    return node;
}

std::vector<Gpu> all_gpus() {
    int count = 0;
    check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    std::vector<Gpu> gpus;
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp properties{};
        check_cuda(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
        const std::string bus = bus_of(i);
        gpus.push_back({i, properties.name, uuid_text(properties.uuid), bus, numa_node_of(bus)});
    }
    return gpus;
}

// The driver takes older cards, which have no products of bf16 and for which no kernel is built: a run on one would end
// in its first layer.
void check_capability(int index) {
    int major = 0;
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "cudaDeviceGetAttribute");
    if (major >= 8) return;
    throw Error(ExitCode::internal, "its compute capability is " + std::to_string(major) + ".x, and 8.0 is the least");
}

}  // namespace

VisibleGpus visible_gpus() noexcept {
    try {
        return {all_gpus(), "no CUDA device is visible"};
    } catch (const Error& error) {
        cudaGetLastError();  // it has been told
        return {{}, error.what()};
    }
}

std::int64_t free_gpu_memory(int index) {
    check_capability(index);
    check_cuda(cudaSetDevice(index), "cudaSetDevice");
    std::size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<std::int64_t>(free);
}

std::int64_t gpu_reserve() { return cuda::Device::cublas_workspace; }

std::int64_t peak_gpu_bytes() { return cuda::peak_allocated(); }

}  // namespace geom
