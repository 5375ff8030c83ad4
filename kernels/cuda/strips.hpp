// How an (L hd) x (L hd) product is cut. Pure integers, of the model's shape alone: the same cut, and so the same bits,
// on any number of ranks.
//
//        l' -> 0 1 2 3 4 5 6 7
//     l  0,1   A A A A A A A A      a strip: whole layers of rows. A head with itself (triangle): columns from its
//     first
//        2,3       B B B B B B      layer on. Strips grow as their columns shrink, so that each is a product of about
//        4..7          C C C C      the same size, and what is computed below the diagonal stays little.
//                                   Two heads (square): all columns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/dtype.hpp"
#include "core/range.hpp"

namespace geom::cuda {

/// Columns of D that one product of bf16 sums: tensor cores cut digits off their running sum (about 1.6e-5 relative
/// over 5120 columns on Hopper, in proportion to their number), so partial sums of fewer columns are added in f32,
/// rounded. Two factors of 1280 columns lose 8e-6 of gram's allowed 1e-5.
constexpr std::int64_t promoted_cols = 1280;

/// A head's strip of partial sums stays in the second cache level between the product and its use.
constexpr std::int64_t strip_bytes = std::int64_t{32} << 20;

/// The hidden dimension in `count` pieces of `width` columns. They are alike where that takes no more than twice as
/// many as need be (one batched product does them all), else the last is narrower.
struct Chunks {
    std::int64_t count = 1;
    std::int64_t width = 0;
};

inline Chunks chunks_of(std::int64_t hidden, DType kept) {
    if (kept != DType::bf16) return {1, hidden};
    const std::int64_t least = (hidden + promoted_cols - 1) / promoted_cols;
    for (std::int64_t count = least; count <= 2 * least; ++count) {
        if (hidden % (64 * count) == 0) return {count, hidden / count};
    }
    const std::int64_t width = ((hidden + least - 1) / least + 63) / 64 * 64;
    return {(hidden + width - 1) / width, width};
}

/// Bytes of an element of a product.
inline std::int64_t product_bytes(DType kept) { return kept == DType::f64 ? 8 : 4; }

enum class Form : std::uint8_t { triangle, square };

/// The layer of a strip's first column, `row` being that of its first row.
inline std::int64_t first_column(std::int64_t row, Form form) { return form == Form::triangle ? row : 0; }

/// One row of tiles of partial sums, `cols` layers wide.
inline std::int64_t layer_strip_bytes(std::int64_t cols, std::int64_t head_dim, std::int64_t hidden, DType kept) {
    return chunks_of(hidden, kept).count * product_bytes(kept) * head_dim * head_dim * cols;
}

/// The rows' layers of each strip.
inline std::vector<Range> strips_of(std::int64_t layers, std::int64_t head_dim, std::int64_t hidden, DType kept,
                                    Form form) {
    std::vector<Range> strips;
    for (std::int64_t l = 0; l < layers;) {
        const std::int64_t fit =
            strip_bytes / layer_strip_bytes(layers - first_column(l, form), head_dim, hidden, kept);
        // Of a triangle at most a quarter of the columns: wider ones would compute too much below the diagonal.
        const std::int64_t most = form == Form::triangle ? (layers - l) / 4 : layers - l;
        strips.push_back({l, l + std::clamp<std::int64_t>(fit, 1, std::max<std::int64_t>(1, most))});
        l = strips.back().end;
    }
    return strips;
}

}  // namespace geom::cuda
