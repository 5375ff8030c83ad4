// One GPU as a rank uses it: memory, the stream its verbs' work is ordered in, the libraries' handles.
#pragma once

#include <cstdint>
#include <functional>

#include "core/buffer.hpp"
#include "core/queue.hpp"
#include "kernels/cuda/handles.hpp"
#include "kernels/workers.hpp"

namespace geom::cuda {

/// Handles bound to a stream. cuBLAS gets a workspace, so that concurrent streams use the same algorithms as one alone.
Cublas make_cublas(cudaStream_t stream, const Buffer& workspace);
Cusolver make_cusolver(cudaStream_t stream);
CusolverParams make_cusolver_params();

class Device {
public:
    /// Makes `index` the current device of the calling thread.
    Device(int index, Workers& workers);
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    /// Makes it the current device of the calling thread, as every thread that calls CUDA has to.
    void use() const;

    /// Plain device or pinned host memory. Throws Error(usage) with the number of bytes when it is short.
    Buffer allocate(std::int64_t bytes) const;
    Buffer allocate_pinned(std::int64_t bytes) const;

    cudaStream_t stream() const noexcept { return stream_.get(); }
    /// Bound to stream(), with a workspace of their own: the same algorithms in every run.
    cublasHandle_t cublas() const noexcept { return cublas_.get(); }
    cusolverDnHandle_t cusolver() const noexcept { return cusolver_.get(); }
    cusolverDnParams_t cusolver_params() const noexcept { return cusolver_params_.get(); }

    /// Returns when everything in stream() is done; the rank shows that it is alive meanwhile.
    void wait();
    /// Waits that have ended: grows while there is progress.
    std::int64_t waits() const noexcept { return waits_; }

    int multiprocessors() const noexcept { return multiprocessors_; }
    /// Most dynamic shared memory a block may have.
    std::int64_t shared_bytes() const noexcept { return shared_bytes_; }

    static constexpr std::int64_t cublas_workspace = std::int64_t{32} << 20;  ///< what NVIDIA advises for sm_90

private:
    int index_;
    Workers& workers_;
    Stream stream_;
    Buffer workspace_;
    Cublas cublas_;
    Cusolver cusolver_;
    CusolverParams cusolver_params_;
    int multiprocessors_ = 1;
    std::int64_t shared_bytes_ = 0;
    std::int64_t waits_ = 0;
};

/// Device::stream() as the seams see it.
class DeviceQueue final : public Queue {
public:
    explicit DeviceQueue(Device& device) : device_(device) {}
    Space space() const noexcept override { return Space::device; }
    Buffer allocate_staging(std::int64_t bytes) override { return device_.allocate_pinned(bytes); }
    void copy(std::byte* to, const std::byte* from, std::int64_t bytes) override;
    void wait() override { device_.wait(); }
    void* native() const noexcept override { return device_.stream(); }

private:
    Device& device_;
};

/// Polls `done` (cudaStreamQuery, cudaEventQuery) until it no longer says cudaErrorNotReady; every 100 ms idle() runs
/// on the calling thread, where there is one.
void poll(const std::function<cudaError_t()>& done, const char* what, const std::function<void()>& idle = {});

/// Bytes of device memory that Device::allocate has handed out in this process: the most at a time.
std::int64_t peak_allocated();

}  // namespace geom::cuda
