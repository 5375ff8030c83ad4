// The inside of the emulated CUDA runtime, for the emulated libraries (cublas.cpp, cusolver.cpp, nccl.cpp): how to put
// work into a stream, and how to ask where memory lies.
//
// A stream runs nothing by itself. What is put into it runs when somebody waits for it, as late as the rules of CUDA
// allow: a missing wait, or staging memory that is used again too early, becomes a wrong result. Work runs on the
// waiting thread, under one mutex. Device memory can be touched while an operation runs and at no other time.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace geom::emulator {

/// Prints the message and aborts: for what on hardware would be an illegal access or a hang.
[[noreturn]] void die(const std::string& message);

using Guard = std::unique_lock<std::recursive_mutex>;
/// Every entry of the emulator holds this.
Guard lock();

/// Notes the error for cudaGetLastError and returns it.
cudaError_t fail(cudaError_t error);

/// Puts work into a stream. `name` has to live for ever. InvalidResourceHandle when there is no such stream.
cudaError_t enqueue(cudaStream_t stream, const char* name, std::function<void()> work);

/// The same for work that others have to help along (a transfer between processes): `work` is called again and again
/// while somebody waits for it, until it returns true. The mutex is free between two calls.
cudaError_t enqueue_polled(cudaStream_t stream, const char* name, std::function<bool()> work);

bool stream_exists(cudaStream_t stream);
int stream_device(cudaStream_t stream);
/// The device of the calling thread.
int current_device();

enum class Where { pageable, pinned, device };
Where where(const void* address);

/// Dies, naming `who` and `what`, unless the bytes lie within one allocation of device memory; zero bytes lie anywhere.
/// `or_pinned`: pinned host memory will do as well, as for kernels.
void require_device(const char* who, const char* what, const void* address, std::size_t bytes, bool or_pinned = false);

/// kernels.cpp: what launch() of the emulated launch.cuh calls. `pointers`: the kernel's arguments that are pointers.
cudaError_t launch_kernel(const char* name, const void* function, dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t stream, std::vector<const void*> pointers, std::function<void()> body);
/// kernels.cpp: runs a kernel now.
void run_kernel(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);
/// kernels.cpp: "kernel NAME, block (x, y, z), thread (x, y, z)" while one runs, else empty; for messages.
std::string running_kernel();
/// kernels.cpp: whether the address lies at the guard of the dynamic shared memory.
bool beyond_shared(const void* address);

}  // namespace geom::emulator
