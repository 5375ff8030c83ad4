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

std::int64_t AmxProducts::block_bytes(const HeadBlockFormat& format) {
    return padded_rows(format.head_dim) / amx::tile_rows * ((format.hidden + amx::tile_cols - 1) / amx::tile_cols) *
           amx::tile_bytes;
}

std::int64_t AmxProducts::scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks) {
    const std::int64_t cols = std::min(chunk_cols, (format.hidden + 31) / 32 * 32);
    return right_blocks * padded_rows(format.head_dim) * cols * 2;
}

void AmxProducts::pack(const MatrixRef& block, const HeadBlockFormat& /*format*/, std::byte* out) {
    amx::pack(reinterpret_cast<const std::uint16_t*>(block.data), block.rows, block.cols, out);
}

void AmxProducts::prepare_right(std::int64_t slot, const std::byte* block, Range columns) {
    k_begin_ = columns.begin / amx::tile_cols;
    k_end_ = std::min(ktiles_, (columns.end + amx::tile_cols - 1) / amx::tile_cols);
    amx::transpose(block, row_tiles_, ktiles_, k_begin_, k_end_, right_.data() + slot * slot_bytes_);
}

void AmxProducts::prepare_left(const std::byte* block, Range /*columns*/) { left_ = block; }

void AmxProducts::accumulate(std::int64_t slot, bool first, Element* c) const {
    amx::accumulate(
        {left_, right_.data() + slot * slot_bytes_, row_tiles_, row_tiles_, ktiles_, k_begin_, k_end_, first}, c);
}

PanelProducts::PanelProducts(const HeadBlockFormat& format, std::int64_t right_blocks)
    : kernels_(*panels::kernels_of(format.path)),
      widens_(widens(format)),
      panels_(padded_rows(format.head_dim) / panels::rows_of_panel),
      cols_of_unit_(panels::unit_bytes / size_of(format.dtype)),
      panel_bytes_(block_bytes(format) / panels_),
      widened_(allocate_host(scratch_bytes(format, right_blocks))),
      slot_bytes_(widened_.size() / (1 + right_blocks)),
      right_(static_cast<std::size_t>(right_blocks)) {}

bool PanelProducts::widens(const HeadBlockFormat& format) {
    return format.dtype == DType::bf16 && !panels::kernels_of(format.path)->pairs;
}

std::int64_t PanelProducts::block_bytes(const HeadBlockFormat& format) {
    const std::int64_t cols_of_unit = panels::unit_bytes / size_of(format.dtype);
    return padded_rows(format.head_dim) * ((format.hidden + cols_of_unit - 1) / cols_of_unit) * panels::unit_bytes;
}

std::int64_t PanelProducts::scratch_bytes(const HeadBlockFormat& format, std::int64_t right_blocks) {
    if (!widens(format)) return 0;
    return (1 + right_blocks) * padded_rows(format.head_dim) * std::min(chunk_cols, (format.hidden + 1) / 2 * 2) *
           panels::unit_bytes;
}

void PanelProducts::pack(const MatrixRef& block, const HeadBlockFormat& format, std::byte* out) {
    const std::int64_t row_bytes = format.hidden * size_of(format.dtype);
    if (block.dtype == format.dtype) return panels::pack(block.data, block.rows, row_bytes, out);
    std::vector<float> widened(static_cast<std::size_t>(panels::rows_of_panel * block.cols));
    for (std::int64_t row = 0; row < block.rows; row += panels::rows_of_panel) {
        const std::int64_t rows = std::min(panels::rows_of_panel, block.rows - row);
        const auto* half = reinterpret_cast<const std::uint16_t*>(block.data) + row * block.cols;
        const auto widen = block.dtype == DType::f16 ? &f16_to_f32 : &bf16_to_f32;
        std::transform(half, half + rows * block.cols, widened.begin(), widen);
        panels::pack(reinterpret_cast<const std::byte*>(widened.data()), rows, row_bytes, out + row * row_bytes);
    }
}

// Of the left block in slot 0, of right ones from slot 1.
panels::Operand PanelProducts::prepared(const std::byte* block, Range columns, std::int64_t slot) {
    const std::int64_t steps = (columns.size() + cols_of_unit_ - 1) / cols_of_unit_;
    const std::byte* from = block + columns.begin / cols_of_unit_ * panels::step_bytes;
    units_ = widens_ ? 2 * steps : steps;
    if (!widens_) return {from, panel_bytes_};
    std::byte* to = widened_.data() + slot * slot_bytes_;
    const std::int64_t stride = units_ * panels::step_bytes;
    for (std::int64_t panel = 0; panel < panels_; ++panel) {
        kernels_.widen(from + panel * panel_bytes_, steps, reinterpret_cast<float*>(to + panel * stride));
    }
    return {to, stride};
}

void PanelProducts::prepare_right(std::int64_t slot, const std::byte* block, Range columns) {
    right_[static_cast<std::size_t>(slot)] = prepared(block, columns, 1 + slot);
}

void PanelProducts::prepare_left(const std::byte* block, Range columns) { left_ = prepared(block, columns, 0); }

void PanelProducts::accumulate(std::int64_t slot, bool first, Element* c) const {
    kernels_.accumulate({left_, right_[static_cast<std::size_t>(slot)], panels_, units_, first}, c);
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
void BlasProducts<Stored, ElementT>::pack(const MatrixRef& block, const HeadBlockFormat& /*format*/, std::byte* out) {
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

template <class Stored, class ElementT>
auto BlasProducts<Stored, ElementT>::widened(const std::byte* block, Range columns, std::vector<Element>& scratch)
    -> const Element* {
    const auto* stored = reinterpret_cast<const Stored*>(block) + columns.begin;
    cols_ = columns.size();
    if constexpr (std::is_same_v<Stored, Element>) {
        stride_ = hidden_;
        return stored;
    } else {
        stride_ = cols_;
        scratch.resize(static_cast<std::size_t>(head_dim_ * cols_));
        for (std::int64_t i = 0; i < head_dim_; ++i) {
            for (std::int64_t j = 0; j < cols_; ++j) {
                scratch[static_cast<std::size_t>(i * cols_ + j)] = bf16_to_f32(stored[i * hidden_ + j]);
            }
        }
        return scratch.data();
    }
}

template <class Stored, class ElementT>
void BlasProducts<Stored, ElementT>::prepare_right(std::int64_t slot, const std::byte* block, Range columns) {
    const auto s = static_cast<std::size_t>(slot);
    right_[s] = widened(block, columns, right_scratch_[s]);
}

template <class Stored, class ElementT>
void BlasProducts<Stored, ElementT>::prepare_left(const std::byte* block, Range columns) {
    left_ = widened(block, columns, left_scratch_);
}

template <class Stored, class ElementT>
void BlasProducts<Stored, ElementT>::accumulate(std::int64_t slot, bool first, Element* c) const {
    const Element* b = right_[static_cast<std::size_t>(slot)];
    const auto n = static_cast<blasint>(head_dim_), k = static_cast<blasint>(cols_);
    const auto ld = static_cast<blasint>(stride_);
    const Element beta = first ? Element{0} : Element{1};
    if constexpr (std::is_same_v<Element, float>) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, k, 1.0F, left_, ld, b, ld, beta, c, n);
    } else {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, k, 1.0, left_, ld, b, ld, beta, c, n);
    }
}

// Sixteen interleaved sums: the order is fixed, whatever the vector width.
template <class Stored, class ElementT>
double BlasProducts<Stored, ElementT>::dot(const Element* a, const Element* b, std::int64_t n) const {
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
