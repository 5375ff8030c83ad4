// Which devices there are, what they say of themselves, and errors.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "emulator/runtime.hpp"

using geom::emulator::fail;
using geom::emulator::Guard;
using geom::emulator::lock;

namespace {

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

/// CUDA_VISIBLE_DEVICES as a list of numbers: the devices' indices on the machine.
std::vector<int> visible_devices() {
    const auto there = static_cast<int>(geom::emulator::from_environment("GEOM_EMULATED_DEVICES", 1));
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

}  // namespace

namespace geom::emulator {

void die(const std::string& message) {
    std::fprintf(stderr, "emulated GPU: %s\n", message.c_str());
    std::abort();
}

Guard lock() {
    static auto* mutex = new std::recursive_mutex;  // never destroyed: static objects may own handles
    return Guard(*mutex);
}

cudaError_t fail(cudaError_t error) {
    last_error = error;
    return error;
}

std::int64_t from_environment(const char* name, std::int64_t otherwise) {
    const char* value = std::getenv(name);
    return value == nullptr || *value == 0 ? otherwise : std::atoll(value);
}

bool any_device() { return !visible_devices().empty(); }

int current_device() { return device_of_thread; }

}  // namespace geom::emulator

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaErrorInvalidValue:
            return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation:
            return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidConfiguration:
            return "cudaErrorInvalidConfiguration";
        case cudaErrorInvalidDevice:
            return "cudaErrorInvalidDevice";
        case cudaErrorNoDevice:
            return "cudaErrorNoDevice";
        case cudaErrorInvalidResourceHandle:
            return "cudaErrorInvalidResourceHandle";
        default:
            return "cudaErrorUnknown";
    }
}
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorNoDevice:
            return "no CUDA-capable device is detected";
        case cudaErrorInvalidResourceHandle:
            return "invalid resource handle";
        default:
            return "unknown error";
    }
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
    const Guard guard = lock();
    *count = static_cast<int>(visible_devices().size());
    return *count > 0 ? cudaSuccess : fail(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
    const Guard guard = lock();
    if (!geom::emulator::any_device()) return fail(cudaErrorNoDevice);
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    device_of_thread = device;
    return cudaSuccess;
}

/// The name and the uuid; all else is -1.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    const Guard guard = lock();
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    std::memset(properties, 0xff, sizeof(*properties));
    std::strcpy(properties->name, "emulated GPU");
    std::memcpy(properties->uuid.bytes, "emulated GPU  ", 15);
    properties->uuid.bytes[15] = static_cast<char>(visible_devices()[static_cast<std::size_t>(device)]);
    return cudaSuccess;
}

/// Those of an H100.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    const Guard guard = lock();
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount:
            *value = 132;
            return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = geom::emulator::most_shared_bytes;
            return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor:
            *value = 9;
            return cudaSuccess;
        default:
            return fail(cudaErrorInvalidValue);
    }
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
    const Guard guard = lock();
    if (!device_exists(device)) return fail(cudaErrorInvalidDevice);
    if (length < 13) return fail(cudaErrorInvalidValue);
    const int index = visible_devices()[static_cast<std::size_t>(device)];
    std::snprintf(id, static_cast<std::size_t>(length), "%s",
                  fmt::format("00000000:{:02X}:00.0", 0x10 + index).c_str());
    return cudaSuccess;
}

}  // extern "C"
