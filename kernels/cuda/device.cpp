#include "kernels/cuda/device.hpp"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

namespace geom::cuda {

namespace {

struct Allocated {
    std::atomic<std::int64_t> now{0}, peak{0};

    void add(std::int64_t bytes) {
        const std::int64_t total = now += bytes;
        std::int64_t before = peak;
        while (before < total && !peak.compare_exchange_weak(before, total)) {
        }
    }
};

/// Of the process: its buffers outlive any one Device.
Allocated& allocated() noexcept {
    static Allocated counter;
    return counter;
}

void free_device(std::byte* data, std::int64_t bytes) noexcept {
    cudaFree(data);
    allocated().now -= bytes;
}
void free_pinned(std::byte* data, std::int64_t /*bytes*/) noexcept { cudaFreeHost(data); }

[[noreturn]] void out_of_memory(const char* kind, std::int64_t bytes, cudaError_t status) {
    cudaGetLastError();  // it has been told, and is no error of the next call
    throw Error(ExitCode::usage,
                fmt::format("out of {} memory: {} bytes could not be allocated ({}); use more GPUs, or "
                            "a smaller --memory-budget so that the work is cut into more passes",
                            kind, bytes, cudaGetErrorString(status)));
}

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

}  // namespace

Cublas make_cublas(cudaStream_t stream, const Buffer& workspace) {
    cublasHandle_t handle = nullptr;
    check_cublas(cublasCreate(&handle), "cublasCreate");
    Cublas blas(handle);
    check_cublas(cublasSetStream(handle, stream), "cublasSetStream");
    check_cublas(cublasSetWorkspace(handle, workspace.data(), static_cast<std::size_t>(workspace.size())),
                 "cublasSetWorkspace");
    check_cublas(cublasSetMathMode(handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION), "cublasSetMathMode");
    return blas;
}

Cusolver make_cusolver(cudaStream_t stream) {
    cusolverDnHandle_t handle = nullptr;
    check_cusolver(cusolverDnCreate(&handle), "cusolverDnCreate");
    Cusolver solver(handle);
    check_cusolver(cusolverDnSetStream(handle, stream), "cusolverDnSetStream");
    return solver;
}

CusolverParams make_cusolver_params() {
    cusolverDnParams_t params = nullptr;
    check_cusolver(cusolverDnCreateParams(&params), "cusolverDnCreateParams");
    return CusolverParams(params);
}

Device::Device(int index, Workers& workers) : index_(index), workers_(workers) {
    use();
    multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, index);
    shared_bytes_ = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
    stream_ = make_stream();
    workspace_ = allocate(cublas_workspace);

    // cuBLAS may compute f32 and f64 by other types of fewer digits where the environment says so: not here.
    for (const char* emulation : {"CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION"}) {
        ::setenv(emulation, "0", 1);
    }
    cublas_ = make_cublas(stream(), workspace_);
    cusolver_ = make_cusolver(stream());
    cusolver_params_ = make_cusolver_params();
}

void Device::use() const { check_cuda(cudaSetDevice(index_), "cudaSetDevice"); }

Buffer Device::allocate(std::int64_t bytes) const {
    if (bytes == 0) return {};
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, static_cast<std::size_t>(bytes));
    if (status != cudaSuccess) out_of_memory("device", bytes, status);
    allocated().add(bytes);
    return {static_cast<std::byte*>(data), bytes, Space::device, &free_device};
}

Buffer Device::allocate_pinned(std::int64_t bytes) const {
    if (bytes == 0) return {};
    void* data = nullptr;
    const cudaError_t status = cudaMallocHost(&data, static_cast<std::size_t>(bytes));
    if (status != cudaSuccess) out_of_memory("pinned host", bytes, status);
    return {static_cast<std::byte*>(data), bytes, Space::pinned, &free_pinned};
}

void Device::wait() {
    poll([this] { return cudaStreamQuery(stream()); }, "work on the GPU", [this] { workers_.idle(); });
    ++waits_;
}

void DeviceQueue::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
    if (bytes == 0) return;  // of memory that is not there
    check_cuda(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, device_.stream()),
               "cudaMemcpyAsync");
}

void poll(const std::function<cudaError_t()>& done, const char* what, const std::function<void()>& idle) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    auto last_idle = start;
    for (;;) {
        const cudaError_t status = done();
        if (status != cudaErrorNotReady) return check_cuda(status, what);
        cudaGetLastError();  // no error, but kept as the last one, for which the next launch would be blamed
        const auto now = Clock::now();
        if (now - last_idle > std::chrono::milliseconds(100)) {
            last_idle = now;
            if (idle) idle();
        }
        if (now - start > std::chrono::milliseconds(2)) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        } else {
            std::this_thread::yield();
        }
    }
}

std::int64_t peak_allocated() { return allocated().peak; }

}  // namespace geom::cuda
