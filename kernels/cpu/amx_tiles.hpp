// bf16 products on AMX tiles. A tile is 16 rows of 64 bytes.
//
// A head's block of `rows` x `cols` bf16 is kept as tiles of 16 rows x 32 columns, each 1 KiB in one piece, padded with
// zeros, so that the left operand loads without strides (a power-of-two stride would put every row into one cache set):
//
//   tile(r, k) at ((r * ktiles) + k) * 1024      r < rows/16, k < cols/32, both rounded up
//
// The right operand is wanted transposed in units of two columns: the same tiles, as 16 x 16 matrices of 32-bit pairs,
// transposed. They are made a chunk of columns at a time, next to their use.
#pragma once

#include <cstddef>
#include <cstdint>

namespace geom::amx {

inline constexpr std::int64_t tile_rows = 16;
inline constexpr std::int64_t tile_cols = 32;
inline constexpr std::int64_t tile_bytes = 1024;

/// `rows` x `cols` bf16, row-major, into tiles (see above).
void pack(const std::uint16_t* source, std::int64_t rows, std::int64_t cols, std::byte* tiles);

/// The transposed tiles (r, k), k in [k_begin, k_end), r < row_tiles, to out[r][k - k_begin].
void transpose(const std::byte* tiles, std::int64_t row_tiles, std::int64_t ktiles, std::int64_t k_begin,
               std::int64_t k_end, std::byte* out);

/// Tells this thread's tile unit the shape of the tiles; before accumulate(). release() gives the state back.
void configure();
void release();

/// c (+)= A B^T over tiles k in [k_begin, k_end): A as packed with `ktiles` tiles a row, B as transposed for this very
/// range; c is (16 row_tiles) x (16 col_tiles) f32, row-major. `first` starts from zero.
struct Product {
    const std::byte* a = nullptr;
    const std::byte* b = nullptr;
    std::int64_t row_tiles = 0;
    std::int64_t col_tiles = 0;
    std::int64_t ktiles = 0;
    std::int64_t k_begin = 0;
    std::int64_t k_end = 0;
    bool first = false;
};
void accumulate(const Product& product, float* c);

/// sum_i a_i b_i in f64 (every product is exact), n a multiple of 16; order fixed by n.
double dot(const float* a, const float* b, std::int64_t n);

}  // namespace geom::amx
