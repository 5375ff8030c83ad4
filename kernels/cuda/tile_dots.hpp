// gram of a key/value group on a GPU: strips of the (L hd) x (L hd) products by cuBLAS, their tiles dotted by a kernel.
#pragma once

#include <cstdint>
#include <span>

#include "core/buffer.hpp"
#include "kernels/backend.hpp"
#include "kernels/cuda/device.hpp"

namespace geom::cuda {

HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden);

/// Bytes of device memory that TileDots keeps for groups of this shape.
std::int64_t tile_dots_scratch(const HeadBlockFormat& format, std::int64_t layers, std::int64_t heads);

class TileDots {
public:
    explicit TileDots(Device& device) : device_(device) {}

    /// Backend::tile_dots.
    void run(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out);

private:
    Device& device_;
    Buffer scratch_;  // kept between calls
    Buffer pinned_;
};

}  // namespace geom::cuda
