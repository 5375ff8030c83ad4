// A test of CudaDenseBatch: skipped, and said, where there is no GPU.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>

#include "kernels/cpu/dense_batch.hpp"
#include "kernels/cuda/dense_batch.hpp"

namespace geom::test {

class OnGpu : public ::testing::Test {
protected:
    void SetUp() override {
        int devices = 0;
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU";
        device_ = std::make_unique<cuda::Device>(0, workers_);
        gpu_ = std::make_unique<cuda::CudaDenseBatch>(*device_, workers_);
    }

    /// Copies between memory of any kind; whole when it returns.
    void copy(void* to, const void* from, std::size_t bytes) const {
        cuda::DeviceQueue queue(*device_);
        queue.copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), static_cast<std::int64_t>(bytes));
        queue.wait();
    }

    Workers workers_{2}, cpu_workers_{2};
    cpu::CpuDenseBatch cpu_{cpu_workers_};
    std::unique_ptr<cuda::Device> device_;
    std::unique_ptr<cuda::CudaDenseBatch> gpu_;
};

}  // namespace geom::test
