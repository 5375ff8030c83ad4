#include "kernels/cuda/input_buffer.hpp"

namespace geom::cuda {

DeviceInputBuffer::DeviceInputBuffer(Device& device, std::int64_t bytes)
    : device_(device),
      pinned_(device.allocate_pinned(bytes)),
      on_device_(device.allocate(bytes)),
      copies_(make_stream()),
      sent_(make_event()),
      released_(make_event()) {}

void DeviceInputBuffer::wait_sent() {
    device_.use();
    poll([this] { return cudaEventQuery(sent_.get()); }, "the copy of weights to the GPU");
}

void DeviceInputBuffer::send(std::int64_t bytes) {
    device_.use();
    check_cuda(cudaStreamWaitEvent(copies_.get(), released_.get()), "cudaStreamWaitEvent");
    if (bytes > 0) {
        check_cuda(cudaMemcpyAsync(on_device_.data(), pinned_.data(), static_cast<std::size_t>(bytes),
                                   cudaMemcpyHostToDevice, copies_.get()),
                   "cudaMemcpyAsync");
    }
    check_cuda(cudaEventRecord(sent_.get(), copies_.get()), "cudaEventRecord");
}

void DeviceInputBuffer::receive() {
    device_.use();
    check_cuda(cudaStreamWaitEvent(device_.stream(), sent_.get()), "cudaStreamWaitEvent");
}

void DeviceInputBuffer::release() {
    device_.use();
    check_cuda(cudaEventRecord(released_.get(), device_.stream()), "cudaEventRecord");
}

}  // namespace geom::cuda
