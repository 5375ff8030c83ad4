#include "kernels/cpu/lane_product.hpp"

#include <algorithm>
#include <array>

#include "kernels/cpu/amx_tiles.hpp"
#include "kernels/cpu/stored_rows.hpp"
#include "kernels/cpu/token_panels.hpp"

namespace geom::cpu {

namespace {

using lanes::width;

constexpr std::int64_t widened_stride = lanes::run + 16;  // not a power of two: rows would share a cache set
constexpr std::int64_t terms = 3;
constexpr std::int64_t tile_floats_amx = amx::tile_bytes / 4;

std::int64_t ktiles_of(std::int64_t columns) { return (columns + amx::tile_cols - 1) / amx::tile_cols; }
std::int64_t row_tiles_of(std::int64_t rows) { return (rows + amx::tile_rows - 1) / amx::tile_rows; }

/// Of one term of a panel.
std::int64_t term_floats(std::int64_t columns) { return ktiles_of(columns) * tile_floats_amx; }

}  // namespace

LaneProducts::LaneProducts(Isa isa) : amx_(isa >= Isa::amx_bf16), kernels_(lanes::kernels_of(isa)) {}

bool LaneProducts::splits(DType weights) const {
    return amx_ && weights == DType::bf16 && products_ == ForwardProducts::fastest;
}

std::string LaneProducts::path(DType weights) const { return splits(weights) ? "amx-bf16x3" : kernels_.path; }

std::int64_t LaneProducts::terms_floats(std::int64_t tokens, std::int64_t columns, DType weights) const {
    return splits(weights) ? terms * panels_of(tokens) * term_floats(columns) : 0;
}

// As AMX wants a right-hand operand: tiles of 16 pairs of dimensions x 16 tokens, [term, panel, tile].
void LaneProducts::split_panel(const Activations& x, std::int64_t panel_number, float* out) const {
    const std::int64_t term = panels_of(x.tokens) * term_floats(x.width);
    const float* from = panel_of(x, panel_number);
    auto* to = reinterpret_cast<std::uint32_t*>(out + panel_number * term_floats(x.width));
    const std::int64_t all = ktiles_of(x.width) * amx::tile_cols;
    std::array<float, 2 * width> last{};
    for (std::int64_t i = 0; i < all; i += 2, from += 2 * width, to += width) {
        const float* pair = from;
        if (i + 2 > x.width) {  // beyond the last dimension there is nothing
            last.fill(0.0F);
            if (i < x.width) std::copy_n(from, width, last.begin());
            pair = last.data();
        }
        kernels_.split(pair, to, to + term, to + 2 * term);
    }
}

std::int64_t LaneProducts::tile_floats(std::int64_t tokens, std::int64_t columns) const {
    const std::int64_t widened = product_tile * widened_stride;
    if (!amx_) return widened;
    const std::int64_t packed = row_tiles_of(product_tile) * ktiles_of(columns) * tile_floats_amx;
    return std::max(widened, packed + product_tile * panels_of(tokens) * width);
}

void LaneProducts::multiply(const Tile& tile, float* scratch) const {
    if (splits(tile.rows.dtype)) {
        multiply_split(tile, scratch);
    } else {
        multiply_f32(tile, scratch);
    }
}

void LaneProducts::multiply_f32(const Tile& tile, float* scratch) const {
    const MatrixRef& w = tile.rows;
    for (std::int64_t k = 0; k < w.cols; k += lanes::run) {
        const Range columns{k, std::min(w.cols, k + lanes::run)};
        if (w.dtype == DType::bf16) {
            const auto* from = reinterpret_cast<const std::uint16_t*>(w.data) + k;
            for (std::int64_t row = 0; row < w.rows; ++row)
                kernels_.widen(from + row * w.cols, columns.size(), scratch + row * widened_stride);
        } else {
            to_f32(w, columns, scratch, widened_stride);
        }
        kernels_.multiply({scratch, widened_stride, w.rows, columns.size(), tile.x.data + k * width,
                           panel_stride(tile.x), panels_of(tile.x.tokens), tile.out, tile.out_stride, k == 0});
    }
}

void LaneProducts::multiply_split(const Tile& tile, float* scratch) const {
    const MatrixRef& w = tile.rows;
    const std::int64_t panels = panels_of(tile.x.tokens), ktiles = ktiles_of(w.cols), row_tiles = row_tiles_of(w.rows);
    auto* packed = reinterpret_cast<std::byte*>(scratch);
    float* sums = scratch + row_tiles * ktiles * tile_floats_amx;
    amx::pack(reinterpret_cast<const std::uint16_t*>(w.data), w.rows, w.cols, packed);
    amx::configure();
    for (std::int64_t term = terms - 1; term >= 0; --term) {  // the small ones first
        const float* right = tile.terms + term * panels * term_floats(w.cols);
        amx::accumulate({packed, reinterpret_cast<const std::byte*>(right), row_tiles, panels, ktiles, 0, ktiles,
                         term == terms - 1},
                        sums);
    }
    amx::release();
    for (std::int64_t p = 0; p < panels; ++p) {
        for (std::int64_t row = 0; row < w.rows; ++row)
            std::copy_n(sums + (row * panels + p) * width, width, tile.out + p * tile.out_stride + row * width);
    }
}

}  // namespace geom::cpu
