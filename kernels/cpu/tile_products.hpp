// Products of two layers' head blocks, one class for each way a block may be kept. Each has the same shape, so that
// tile_dots.cpp is written once:
//
//   Element                     what products accumulate in
//   layout(hd, D)               bytes of a block, rows of a padded tile
//   pack(block, out)            stored elements to the kept form, exactly
//   Right                       a chunk of columns of right-hand blocks, prepared once for many left-hand ones
//   accumulate(left, right, ..) C (+)= left right^T over that chunk
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/head_products.hpp"

namespace geom::cpu {

/// bf16 blocks as AMX tiles, f32 accumulation.
class AmxProducts {
public:
    using Element = float;
    static constexpr std::int64_t chunk_cols = 1024;  ///< of three right-hand layers fit the second cache level

    AmxProducts(const HeadBlockFormat& format, std::int64_t right_blocks);
    ~AmxProducts() { amx::release(); }
    AmxProducts(const AmxProducts&) = delete;
    AmxProducts& operator=(const AmxProducts&) = delete;

    static std::int64_t padded_rows(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
    static std::int64_t block_bytes(std::int64_t head_dim, std::int64_t hidden);
    static std::int64_t scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks);
    static void pack(const MatrixRef& block, std::byte* out);

    void prepare_right(std::int64_t slot, const std::byte* block, std::int64_t col_begin, std::int64_t col_end);
    void accumulate(const std::byte* left, std::int64_t slot, bool first, Element* c);
    static double dot(const Element* a, const Element* b, std::int64_t n) { return amx::dot(a, b, n); }

private:
    std::int64_t row_tiles_, ktiles_, k_begin_ = 0, k_end_ = 0;
    Buffer right_;
    std::int64_t slot_bytes_;
};

/// Row-major blocks of Stored (bf16 bits, float or double), multiplied by OpenBLAS in Element. bf16 is widened,
/// exactly, a chunk at a time.
template <class Stored, class ElementT>
class BlasProducts {
public:
    using Element = ElementT;
    static constexpr std::int64_t chunk_cols = 1024;

    BlasProducts(const HeadBlockFormat& format, std::int64_t right_blocks);

    static std::int64_t padded_rows(std::int64_t head_dim) { return head_dim; }
    static std::int64_t block_bytes(std::int64_t head_dim, std::int64_t hidden) {
        return head_dim * hidden * static_cast<std::int64_t>(sizeof(Stored));
    }
    static std::int64_t scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks);
    static void pack(const MatrixRef& block, std::byte* out);

    void prepare_right(std::int64_t slot, const std::byte* block, std::int64_t col_begin, std::int64_t col_end);
    void accumulate(const std::byte* left, std::int64_t slot, bool first, Element* c);
    static double dot(const Element* a, const Element* b, std::int64_t n);

private:
    const Element* widened(const std::byte* block, std::vector<Element>& scratch, std::int64_t& stride) const;

    std::int64_t head_dim_, hidden_, col_begin_ = 0, col_end_ = 0;
    std::vector<std::vector<Element>> right_scratch_;
    std::vector<Element> left_scratch_;
    std::vector<const Element*> right_;
    std::int64_t right_stride_ = 0;
};

using Bf16Products = BlasProducts<std::uint16_t, float>;
using F32Products = BlasProducts<float, float>;
using F64Products = BlasProducts<double, double>;

}  // namespace geom::cpu
