// Pinned memory and its copy on the device, filled by a copy that runs beside the verbs.
//
//   copy stream    | copy layer 1      | copy layer 2      | ...
//   Device stream  | verbs of layer 0  | verbs of layer 1  | ...      events keep each copy before its verbs, and the
//                                                                    verbs before the copy that overwrites what they
//                                                                    read
#pragma once

#include "core/buffer.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/input_buffer.hpp"

namespace geom::cuda {

class DeviceInputBuffer final : public InputBuffer {
public:
    DeviceInputBuffer(Device& device, std::int64_t bytes);

    std::byte* host() const noexcept override { return pinned_.data(); }
    const std::byte* data() const noexcept override { return on_device_.data(); }
    void wait_sent() override;
    void send(std::int64_t bytes) override;
    void receive() override;
    void release() override;

private:
    Device& device_;
    Buffer pinned_, on_device_;
    Stream copies_;
    Event sent_, released_;
};

}  // namespace geom::cuda
