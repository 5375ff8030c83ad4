// Stands in for this folder in a build without CUDA.
#include "core/error.hpp"
#include "kernels/gpu.hpp"
#include "kernels/trace.hpp"

namespace geom {

VisibleGpus visible_gpus() noexcept { return {{}, "this build has no CUDA backend"}; }
std::int64_t free_gpu_memory(int /*index*/) { return 0; }
std::int64_t gpu_reserve() { return 0; }
std::int64_t peak_gpu_bytes() { return 0; }
std::unique_ptr<Backend> make_cuda_backend(int /*gpu*/, int /*threads*/) {
    throw Error(ExitCode::internal, "this build has no CUDA backend");
}

TraceRange::TraceRange(const char* /*name*/) {}
TraceRange::~TraceRange() = default;

}  // namespace geom
