// The GPUs a process sees, and the backend on one of them. A build without CUDA sees none (kernels/cuda/absent.cpp).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"

namespace geom {

struct Gpu {
    int index = 0;          ///< among those this process sees
    std::string name;       ///< "NVIDIA H100 80GB HBM3"
    std::string uuid;       ///< the same card has the same in every process
    std::string bus;        ///< address on the PCI bus: parts of one card (MIG) have one
    int numa_node = -1;     ///< of the host memory next to it; -1: not known
    std::int64_t free = 0;  ///< bytes of its memory, as free_gpu_memory() says; 0 until asked
};

struct VisibleGpus {
    std::vector<Gpu> gpus;
    std::string why_none;  ///< where there are none: "this build has no CUDA", or the driver's words
};

/// Never throws: a machine without GPUs is an ordinary one.
VisibleGpus visible_gpus() noexcept;

/// Bytes of its memory that are free once this process uses it. Throws Error(internal) for a card that cannot be used:
/// too old, or with the driver's words.
std::int64_t free_gpu_memory(int index);

/// What the backend takes of the GPU's memory for itself, besides what the plan counts.
std::int64_t gpu_reserve();

/// Most bytes of GPU memory this process has held at a time, and holds now.
std::int64_t peak_gpu_bytes();

/// `threads` host threads work beside the GPU. Throws Error(internal) when it cannot be used.
std::unique_ptr<Backend> make_cuda_backend(int gpu, int threads);

}  // namespace geom
