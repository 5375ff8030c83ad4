// What a test may ask of the emulated GPU: a stand-in for CUDA on a processor (how it is built: cmake/cuda.cmake,
// GEOM_CUDA=EMULATED) that runs the project's own CUDA sources so that their indexing, sizes, memory spaces and
// ordering are tested where there is no GPU. It has what kernels/ and mpi/nccl call and nothing else
// (tests/check_emulator.sh): a call comes in with the source that makes it.
//
// It proves nothing of: rates; the hardware's arithmetic (OpenBLAS and LAPACK answer for cuBLAS and cuSOLVER); races
// inside a kernel (threads run one at a time and are switched at barriers alone, warps upwards in one phase and
// downwards in the next); static shared memory that is read before it is written or beyond its end.
//
// Environment: GEOM_EMULATED_DEVICES (1), GEOM_EMULATED_MEMORY (bytes a device and process, 4 GiB), read whenever they
// are needed.
#pragma once

#include <cstdint>

namespace geom::emulator {

/// Bytes of device memory allocated now, of all devices, and the most of them at once since the start or forget_peak().
std::int64_t device_bytes();
std::int64_t peak_device_bytes();
void forget_peak();

/// Calls since the start that allocate or free memory of the device or pinned memory: each of them makes a GPU wait for
/// all that it was given to do.
std::int64_t memory_calls();

/// Operations (kernels, copies, library calls) that wait to be run.
std::int64_t pending_operations();
/// Runs them all.
void finish_all();

}  // namespace geom::emulator
