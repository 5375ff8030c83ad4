// The inside of the emulated CUDA runtime, for its own files and the emulated libraries (cublas.cpp, cusolver.cpp,
// nccl.cpp): how to put work into a stream, and how to ask where memory lies.
//
// A stream runs nothing by itself. What is put into it runs when somebody asks whether it is done, as late as the rules
// of CUDA allow: a missing wait, or staging memory that is used again too early, becomes a wrong result. Work runs on
// the asking thread, under one mutex. Device memory can be touched while an operation runs and at no other time.
// There is no default stream: what names none is refused.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "kernels/cuda/launch_shape.hpp"

namespace geom::emulator {

/// Prints the message and aborts: for what on hardware would be an illegal access or a hang.
[[noreturn]] void die(const std::string& message);

using Guard = std::unique_lock<std::recursive_mutex>;
/// Every entry of the emulator holds this.
Guard lock();

// --- devices.cpp -----------------------------------------------------------------------------------------------------

/// Notes the error for cudaGetLastError and returns it.
cudaError_t fail(cudaError_t error);

std::int64_t from_environment(const char* name, std::int64_t otherwise);

bool any_device();
/// The device of the calling thread.
int current_device();

/// The most dynamic shared memory that a block can have.
inline constexpr int most_shared_bytes = 232448;

// --- memory.cpp ------------------------------------------------------------------------------------------------------

enum class Where { pageable, pinned, device };
Where where(const void* address);

/// Bytes from the address to the end of the allocation it lies in; -1: none of the emulator's.
std::int64_t bytes_left(const void* address);

/// Dies, naming `who` and `what`, unless the bytes lie within one allocation of device memory; zero bytes lie anywhere.
void require_device(const char* who, const char* what, const void* address, std::size_t bytes);

/// Bytes of device memory that a device may have, and has handed out.
std::int64_t capacity();
std::int64_t used_bytes(int device);

/// Device memory can be touched while one of these lives. Its bounds are checked at the end.
class Unlocked {
public:
    explicit Unlocked(const char* operation);
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked();

private:
    const char* operation_;
};

// --- streams.cpp -----------------------------------------------------------------------------------------------------

/// Puts work into a stream. `name` has to live for ever. InvalidResourceHandle when there is no such stream.
cudaError_t enqueue(cudaStream_t stream, const char* name, const std::function<void()>& work);

/// The same for work that others have to help along (a transfer between processes): `work` is called again and again
/// while somebody waits for it, until it returns true. The mutex is free between two calls.
cudaError_t enqueue_polled(cudaStream_t stream, const char* name, std::function<bool()> work);

/// The device of a stream; -1: there is no such stream.
int stream_device(cudaStream_t stream);

/// Returns when all that was put into the device's streams is done.
void finish_device(int device, Guard& guard);
/// What runs now; null: nothing.
const char* running_operation();

// --- kernels.cpp -----------------------------------------------------------------------------------------------------

/// Runs a kernel now.
void run_kernel(const char* name, const cuda::LaunchShape& shape, const std::function<void()>& body);
/// "kernel NAME, block (x, y, z), thread (x, y, z)" while one runs, else empty; for messages.
std::string running_kernel();
/// Whether the address lies at the guard of the dynamic shared memory.
bool beyond_shared(const void* address);

}  // namespace geom::emulator
