// Products of two layers' head blocks, one class for each way a block may be kept. Each has the same shape, so that
// tile_dots.cpp is written once:
//
//   Element                               what products accumulate in
//   padded_rows(hd)                       rows of a tile as it is accumulated
//   block_bytes(format)                   of a block as it is kept
//   pack(block, format, out)              stored elements to the kept form, exactly
//   prepare_right(slot, block, columns)   a chunk of a right-hand block, once for many left-hand ones
//   prepare_left(block, columns)          the same chunk of a left-hand block, once for the right-hand ones prepared
//   accumulate(slot, first, c)            C (+)= left right^T over that chunk
//   dot(a, b, n)                          sum of products of two tiles' elements, f64
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.hpp"
#include "core/range.hpp"
#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/cpu/panels.hpp"
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
    static std::int64_t block_bytes(const HeadBlockFormat& format);
    static std::int64_t scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks);
    static void pack(const MatrixRef& block, const HeadBlockFormat& format, std::byte* out);

    void prepare_right(std::int64_t slot, const std::byte* block, Range columns);
    void prepare_left(const std::byte* block, Range columns);
    void accumulate(std::int64_t slot, bool first, Element* c) const;
    double dot(const Element* a, const Element* b, std::int64_t n) const { return amx::dot(a, b, n); }

private:
    std::int64_t row_tiles_, ktiles_, k_begin_ = 0, k_end_ = 0;
    Buffer right_;
    std::int64_t slot_bytes_;
    const std::byte* left_ = nullptr;
};

/// Panels of bf16 or f32, multiplied by the vector instructions that the format's path names, f32 accumulation. Used
/// where they lie; bf16 is widened first, a chunk at a time, when products are of f32.
class PanelProducts {
public:
    using Element = float;
    static constexpr std::int64_t chunk_cols = 1024;

    PanelProducts(const HeadBlockFormat& format, std::int64_t right_blocks);

    static std::int64_t padded_rows(std::int64_t head_dim) {
        return (head_dim + panels::rows_of_panel - 1) / panels::rows_of_panel * panels::rows_of_panel;
    }
    static std::int64_t block_bytes(const HeadBlockFormat& format);
    static std::int64_t scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks);
    static void pack(const MatrixRef& block, const HeadBlockFormat& format, std::byte* out);

    void prepare_right(std::int64_t slot, const std::byte* block, Range columns);
    void prepare_left(const std::byte* block, Range columns);
    void accumulate(std::int64_t slot, bool first, Element* c) const;
    double dot(const Element* a, const Element* b, std::int64_t n) const { return kernels_.dot(a, b, n); }

private:
    static bool widens(const HeadBlockFormat& format);
    panels::Operand prepared(const std::byte* block, Range columns, std::int64_t slot);

    const panels::Kernels& kernels_;
    bool widens_;
    std::int64_t panels_, cols_of_unit_, panel_bytes_, units_ = 0;
    Buffer widened_;  // the left block, then the right ones
    std::int64_t slot_bytes_;
    panels::Operand left_;
    std::vector<panels::Operand> right_;
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
    static std::int64_t block_bytes(const HeadBlockFormat& format) {
        return format.head_dim * format.hidden * static_cast<std::int64_t>(sizeof(Stored));
    }
    static std::int64_t scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks);
    static void pack(const MatrixRef& block, const HeadBlockFormat& format, std::byte* out);

    void prepare_right(std::int64_t slot, const std::byte* block, Range columns);
    void prepare_left(const std::byte* block, Range columns);
    void accumulate(std::int64_t slot, bool first, Element* c) const;
    double dot(const Element* a, const Element* b, std::int64_t n) const;

private:
    // The chunk of a block in Element: where it lies when it is kept that way, else a widened copy.
    const Element* widened(const std::byte* block, Range columns, std::vector<Element>& scratch);

    std::int64_t head_dim_, hidden_, cols_ = 0, stride_ = 0;
    std::vector<std::vector<Element>> right_scratch_;
    std::vector<Element> left_scratch_;
    std::vector<const Element*> right_;
    const Element* left_ = nullptr;
};

using Bf16Products = BlasProducts<std::uint16_t, float>;
using F32Products = BlasProducts<float, float>;
using F64Products = BlasProducts<double, double>;

}  // namespace geom::cpu
