// gram of a key/value group on a GPU: strips of the (L hd) x (L hd) products by cuBLAS, their tiles dotted by a kernel.
#pragma once

#include <cstdint>
#include <span>

#include "core/buffer.hpp"
#include "kernels/backend.hpp"
#include "kernels/cuda/device.hpp"

namespace geom::cuda {

HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden);

/// Bytes of device memory that TileDots::run takes for a group of this shape, until it is done.
std::int64_t tile_dots_scratch(const HeadBlockFormat& format, std::int64_t layers, std::int64_t heads);

class TileDots {
public:
    explicit TileDots(Device& device) : device_(device) {}

    /// Backend::tile_dots.
    void run(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out);

private:
    Device& device_;
    Buffer pinned_;  // results on their way to the host
};

}  // namespace geom::cuda
