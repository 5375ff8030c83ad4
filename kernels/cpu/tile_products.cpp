#include "kernels/cpu/tile_products.hpp"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "core/error.hpp"

namespace geom::cpu {

AmxProducts::AmxProducts(const HeadBlockFormat& format, std::int64_t right_blocks)
    : row_tiles_(padded_rows(format.head_dim) / amx::tile_rows),
      ktiles_((format.hidden + amx::tile_cols - 1) / amx::tile_cols),
      right_(allocate_host(scratch_bytes(format, right_blocks))),
      slot_bytes_(right_.size() / right_blocks) {
    amx::configure();
}

std::int64_t AmxProducts::block_bytes(std::int64_t head_dim, std::int64_t hidden) {
    return padded_rows(head_dim) / amx::tile_rows * ((hidden + amx::tile_cols - 1) / amx::tile_cols) * amx::tile_bytes;
}

std::int64_t AmxProducts::scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks) {
    const std::int64_t cols = std::min(chunk_cols, (format.hidden + 31) / 32 * 32);
    return right_blocks * padded_rows(format.head_dim) * cols * 2;
}

void AmxProducts::pack(const MatrixRef& block, std::byte* out) {
    amx::pack(reinterpret_cast<const std::uint16_t*>(block.data), block.rows, block.cols, out);
}

void AmxProducts::prepare_right(std::int64_t slot, const std::byte* block, std::int64_t col_begin,
                                std::int64_t col_end) {
    k_begin_ = col_begin / amx::tile_cols;
    k_end_ = std::min(ktiles_, (col_end + amx::tile_cols - 1) / amx::tile_cols);
    amx::transpose(block, row_tiles_, ktiles_, k_begin_, k_end_, right_.data() + slot * slot_bytes_);
}

void AmxProducts::accumulate(const std::byte* left, std::int64_t slot, bool first, Element* c) {
    amx::accumulate(
        {left, right_.data() + slot * slot_bytes_, row_tiles_, row_tiles_, ktiles_, k_begin_, k_end_, first}, c);
}

template <class Stored, class ElementT>
BlasProducts<Stored, ElementT>::BlasProducts(const HeadBlockFormat& format, std::int64_t right_blocks)
    : head_dim_(format.head_dim),
      hidden_(format.hidden),
      right_scratch_(static_cast<std::size_t>(right_blocks)),
      right_(static_cast<std::size_t>(right_blocks)) {}

template <class Stored, class ElementT>
std::int64_t BlasProducts<Stored, ElementT>::scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks) {
    if (std::is_same_v<Stored, Element>) return 0;
    return (right_blocks + 1) * format.head_dim * std::min(chunk_cols, format.hidden) *
           static_cast<std::int64_t>(sizeof(Element));
}

template <class Stored, class ElementT>
void BlasProducts<Stored, ElementT>::pack(const MatrixRef& block, std::byte* out) {
    const std::int64_t n = block.rows * block.cols;
    if (size_of(block.dtype) == static_cast<std::int64_t>(sizeof(Stored)) && block.dtype != DType::f16) {
        std::memcpy(out, block.data, static_cast<std::size_t>(n) * sizeof(Stored));
        return;
    }
    auto* to = reinterpret_cast<Stored*>(out);
    const auto* half = reinterpret_cast<const std::uint16_t*>(block.data);
    const auto* single = reinterpret_cast<const float*>(block.data);
    for (std::int64_t i = 0; i < n; ++i) {
        switch (block.dtype) {
            case DType::bf16:
                to[i] = static_cast<Stored>(bf16_to_f32(half[i]));
                break;
            case DType::f16:
                to[i] = static_cast<Stored>(f16_to_f32(half[i]));
                break;
            case DType::f32:
                to[i] = static_cast<Stored>(single[i]);
                break;
            default:
                throw Error(ExitCode::internal, "a head block of this type cannot be packed");
        }
    }
}

// The chunk of a block in Element: where it lies when it is kept that way, else a widened copy.
template <class Stored, class ElementT>
auto BlasProducts<Stored, ElementT>::widened(const std::byte* block, std::vector<Element>& scratch,
                                             std::int64_t& stride) const -> const Element* {
    const auto* stored = reinterpret_cast<const Stored*>(block) + col_begin_;
    if constexpr (std::is_same_v<Stored, Element>) {
        stride = hidden_;
        return stored;
    } else {
        stride = col_end_ - col_begin_;
        scratch.resize(static_cast<std::size_t>(head_dim_ * stride));
        for (std::int64_t i = 0; i < head_dim_; ++i) {
            for (std::int64_t j = 0; j < stride; ++j) {
                scratch[static_cast<std::size_t>(i * stride + j)] = bf16_to_f32(stored[i * hidden_ + j]);
            }
        }
        return scratch.data();
    }
}

template <class Stored, class ElementT>
void BlasProducts<Stored, ElementT>::prepare_right(std::int64_t slot, const std::byte* block, std::int64_t col_begin,
                                                   std::int64_t col_end) {
    col_begin_ = col_begin;
    col_end_ = col_end;
    const auto s = static_cast<std::size_t>(slot);
    right_[s] = widened(block, right_scratch_[s], right_stride_);
}

template <class Stored, class ElementT>
void BlasProducts<Stored, ElementT>::accumulate(const std::byte* left, std::int64_t slot, bool first, Element* c) {
    std::int64_t stride = 0;
    const Element* a = widened(left, left_scratch_, stride);
    const Element* b = right_[static_cast<std::size_t>(slot)];
    const auto n = static_cast<blasint>(head_dim_), k = static_cast<blasint>(col_end_ - col_begin_);
    const auto lda = static_cast<blasint>(stride), ldb = static_cast<blasint>(right_stride_);
    const Element beta = first ? Element{0} : Element{1};
    if constexpr (std::is_same_v<Element, float>) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, k, 1.0F, a, lda, b, ldb, beta, c, n);
    } else {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, k, 1.0, a, lda, b, ldb, beta, c, n);
    }
}

// Sixteen interleaved sums: the order is fixed, whatever the vector width.
template <class Stored, class ElementT>
double BlasProducts<Stored, ElementT>::dot(const Element* a, const Element* b, std::int64_t n) {
    std::array<double, 16> sums{};
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (std::int64_t j = 0; j < 16; ++j)
            sums[static_cast<std::size_t>(j)] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
    }
    for (std::int64_t j = 0; i + j < n; ++j)
        sums[static_cast<std::size_t>(j)] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
    double sum = 0.0;
    for (const double part : sums) sum += part;
    return sum;
}

template class BlasProducts<std::uint16_t, float>;
template class BlasProducts<float, float>;
template class BlasProducts<double, double>;

}  // namespace geom::cpu
