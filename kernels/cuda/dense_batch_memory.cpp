#include "kernels/cuda/dense_batch_memory.hpp"

namespace geom::cuda {

void BatchMemory::wait() {
    device_.wait();
    uploaded_ = 0;
}

void BatchMemory::reserve_scratch(std::int64_t bytes) {
    if (bytes <= scratch_.size()) return;
    wait();
    scratch_ = {};  // first, so that both are never held
    scratch_ = device_.allocate(bytes);
}

std::byte* BatchMemory::reserve_upload(std::int64_t bytes) {
    if (uploaded_ + bytes > upload_host_.size()) wait();
    if (bytes > upload_host_.size()) {
        const std::int64_t size = std::max(bytes, least_upload);
        upload_host_ = {};
        upload_host_ = device_.allocate_pinned(size);
        upload_device_ = {};
        upload_device_ = device_.allocate(size);
    }
    std::byte* host = upload_host_.data() + uploaded_;
    uploaded_ += bytes;
    return host;
}

void BatchMemory::send(const std::byte* host, std::int64_t bytes) {
    if (bytes == 0) return;
    check_cuda(cudaMemcpyAsync(device_of(host), host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice,
                               device_.stream()),
               "cudaMemcpyAsync");
}

const std::byte* BatchMemory::fetch_bytes(const void* from, std::int64_t bytes) {
    if (bytes > landing_.size()) {
        wait();
        landing_ = {};
        landing_ = device_.allocate_pinned(bytes);
    }
    if (bytes > 0) {
        check_cuda(cudaMemcpyAsync(landing_.data(), from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost,
                                   device_.stream()),
                   "cudaMemcpyAsync");
    }
    wait();
    return landing_.data();
}

}  // namespace geom::cuda
