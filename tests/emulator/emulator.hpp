// What a test may ask of the emulated GPU: a stand-in for CUDA on a processor (README of how it is built:
// cmake/cuda.cmake, GEOM_CUDA=EMULATED) that runs the project's own CUDA sources so that their indexing, sizes, memory
// spaces and ordering are tested where there is no GPU.
//
// It proves nothing of: rates; the hardware's arithmetic (OpenBLAS and LAPACK answer for cuBLAS and cuSOLVER); races
// inside a kernel (threads run one at a time and are switched at barriers alone, warps upwards in one phase and
// downwards in the next); static shared memory that is read before it is written or beyond its end.
//
// Environment: GEOM_EMULATED_DEVICES (1), GEOM_EMULATED_MEMORY (bytes a device and process, 4 GiB). Both are read at
// the first use of the value and by reset().
#pragma once

#include <cstdint>
#include <string_view>

namespace geom::emulator {

/// Most bytes of device memory that were allocated at once, of all devices, since the start or reset().
std::int64_t peak_device_bytes();
/// Bytes of device memory allocated now.
std::int64_t device_bytes();

/// Operations (kernels, copies, library calls) that have run, those of one name ("cudaMemcpyAsync", a kernel's name as
/// given to launch()), and those that wait to be run.
std::int64_t operations();
std::int64_t operations(std::string_view name);
std::int64_t pending_operations();

/// Runs what is pending, sets the peak to what is allocated and the counts to zero, reads the environment again.
void reset();

}  // namespace geom::emulator
