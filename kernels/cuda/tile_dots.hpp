// Products of head blocks on a GPU: strips of the (L hd) x (L hd) products by cuBLAS, their tiles dotted by a kernel.
#pragma once

#include <cstdint>
#include <span>

#include "core/buffer.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/head_products.hpp"

namespace geom::cuda {

class CudaHeadProducts final : public HeadProducts {
public:
    explicit CudaHeadProducts(Device& device) : device_(device) {}

private:
    HeadBlockFormat do_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const override;
    void do_pack(std::span<const MatrixRef> blocks, const HeadBlockFormat& format, std::span<std::byte* const> out,
                 const MatrixRef& columns) override;
    void do_tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) override;
    void do_end_products() override { scratch_ = {}; }
    std::int64_t do_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                  std::int64_t heads) const override;

    void do_cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format,
                       std::span<double> out) override;
    std::int64_t do_cross_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers, std::int64_t left_heads,
                                        std::int64_t right_heads) const override;

    /// issue(results, further scratch memory) on the device; then the results go to `out`.
    template <class F>
    void with_results(std::int64_t scratch_bytes, std::span<double> out, F&& issue);
    template <class F>
    void with_runner(const HeadBlockFormat& format, std::int64_t layers, double* out, std::byte* scratch, F&& f);

    Device& device_;
    Buffer scratch_;  ///< of products, until they end: a GPU stands still while memory is allocated or freed
    Buffer pinned_;   ///< results on their way to the host
    Buffer columns_;  ///< weights of columns, f64
};

}  // namespace geom::cuda
