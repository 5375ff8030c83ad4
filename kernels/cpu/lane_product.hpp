// Weights times panels of tokens (lanes.hpp), a tile of the weight's rows at a time on the calling thread. Two ways:
//
//   f32    the tile is widened, a run of its columns at a time, and used for all tokens
//   amx    a bf16 tile as stored, with AMX: every activation is split in three bf16 terms, whose sum it is, so that all
//          products are exact and only sums are rounded, as in f32
#pragma once

#include <cstdint>
#include <string>

#include "core/range.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/matrix_ref.hpp"
#include "kernels/transformer.hpp"

namespace geom::cpu {

/// Rows of a weight that are a task.
inline constexpr std::int64_t product_tile = 48;

class LaneProducts {
public:
    explicit LaneProducts(Isa isa);

    void use(ForwardProducts products) { products_ = products; }
    const lanes::Kernels& kernels() const noexcept { return kernels_; }
    bool splits(DType weights) const;
    std::string path(DType weights) const;

    /// Floats that the terms of activations take, shared by the tiles of a product; 0 where weights are not split.
    std::int64_t terms_floats(std::int64_t tokens, std::int64_t width, DType weights) const;
    /// One panel's terms; before any tile.
    void split_panel(const Activations& x, std::int64_t panel, float* terms) const;

    /// Floats of a thread's own.
    std::int64_t tile_floats(std::int64_t tokens, std::int64_t width) const;

    /// A weight's tile times x.
    struct Tile {
        const Activations& x;
        const float* terms;  ///< of x, where it is split
        MatrixRef rows;      ///< at most product_tile of the weight
        float* out;          ///< panels, out_stride apart: row i at 16 i
        std::int64_t out_stride;
    };
    void multiply(const Tile& tile, float* scratch) const;

private:
    void multiply_f32(const Tile& tile, float* scratch) const;
    void multiply_split(const Tile& tile, float* scratch) const;

    bool amx_;
    const lanes::Kernels& kernels_;
    ForwardProducts products_ = ForwardProducts::fastest;
};

}  // namespace geom::cpu
