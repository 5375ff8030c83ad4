// Register use: a 2 x 2 block of accumulator tiles, two tiles of A, two of B: 4 loads for 4 products, which take twice
// as long as the loads when these hit the first cache level. k advances `k_block` tiles inside a block, so that A's
// panel (2 x k_block KiB) stays in the first level while B's panels stream past it from the second, and the two rows of
// C tiles that a panel belongs to (16 KiB for 128 columns) are finished before the next two begin.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/amx_tiles.hpp"

namespace geom::amx {

namespace {

constexpr std::int64_t k_block = 16;

struct alignas(64) TileConfig {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};

    constexpr TileConfig() {
        for (int t = 0; t < 8; ++t) {
            row_bytes[t] = 64;
            rows[t] = 16;
        }
    }
};

// In static memory: gcc 12 believes that loading the configuration reads its first 8 bytes only.
constexpr TileConfig full_tiles;

// Tiles 0..3 accumulate c, 4..5 hold A, 6..7 hold B. Rows and Cols are 1 or 2 tiles.
template <int Rows, int Cols>
void block(const std::byte* a, std::int64_t a_row, const std::byte* b, std::int64_t b_col, std::int64_t steps, float* c,
           std::int64_t ldc, bool first) {
    const auto stride = static_cast<int>(ldc * 4);
    float* c_low = c + 16 * ldc;
    if (first) {
        _tile_zero(0);
        if constexpr (Cols > 1) _tile_zero(1);
        if constexpr (Rows > 1) _tile_zero(2);
        if constexpr (Rows > 1 && Cols > 1) _tile_zero(3);
    } else {
        _tile_loadd(0, c, stride);
        if constexpr (Cols > 1) _tile_loadd(1, c + 16, stride);
        if constexpr (Rows > 1) _tile_loadd(2, c_low, stride);
        if constexpr (Rows > 1 && Cols > 1) _tile_loadd(3, c_low + 16, stride);
    }
    for (std::int64_t k = 0; k < steps; ++k) {
        const std::byte* a_tile = a + k * tile_bytes;
        const std::byte* b_tile = b + k * tile_bytes;
        _tile_loadd(4, a_tile, 64);
        _tile_stream_loadd(6, b_tile, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (Cols > 1) {
            _tile_stream_loadd(7, b_tile + b_col, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (Rows > 1) {
            _tile_loadd(5, a_tile + a_row, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (Rows > 1 && Cols > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, stride);
    if constexpr (Cols > 1) _tile_stored(1, c + 16, stride);
    if constexpr (Rows > 1) _tile_stored(2, c_low, stride);
    if constexpr (Rows > 1 && Cols > 1) _tile_stored(3, c_low + 16, stride);
}

// The 16 x 16 transpose of 32-bit elements: rows 1, 2, 4, then 8 apart change places.
void transpose_tile(const std::byte* from, std::byte* to) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(from + 64 * i);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        _mm512_store_si512(to + 64 * i, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_store_si512(to + 64 * (i + 4), _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_store_si512(to + 64 * (i + 8), _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
        _mm512_store_si512(to + 64 * (i + 12), _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
    }
}

}  // namespace

void pack(const std::uint16_t* source, std::int64_t rows, std::int64_t cols, std::byte* tiles) {
    const std::int64_t ktiles = (cols + tile_cols - 1) / tile_cols;
    for (std::int64_t r0 = 0; r0 < rows; r0 += tile_rows) {
        for (std::int64_t k = 0; k < ktiles; ++k) {
            const std::int64_t width = std::min(tile_cols, cols - k * tile_cols);
            for (std::int64_t i = 0; i < tile_rows; ++i, tiles += 64) {
                const bool inside = r0 + i < rows;
                if (inside)
                    std::memcpy(tiles, source + (r0 + i) * cols + k * tile_cols, static_cast<std::size_t>(2 * width));
                const std::int64_t filled = inside ? 2 * width : 0;
                if (filled < 64) std::memset(tiles + filled, 0, static_cast<std::size_t>(64 - filled));
            }
        }
    }
}

void transpose(const std::byte* tiles, std::int64_t row_tiles, std::int64_t ktiles, std::int64_t k_begin,
               std::int64_t k_end, std::byte* out) {
    for (std::int64_t r = 0; r < row_tiles; ++r) {
        for (std::int64_t k = k_begin; k < k_end; ++k, out += tile_bytes)
            transpose_tile(tiles + (r * ktiles + k) * tile_bytes, out);
    }
}

void configure() { _tile_loadconfig(&full_tiles); }

void release() { _tile_release(); }

void accumulate(const Product& p, float* c) {
    const std::int64_t a_row = p.ktiles * tile_bytes, b_col = (p.k_end - p.k_begin) * tile_bytes;
    const std::int64_t ldc = 16 * p.col_tiles;
    for (std::int64_t i = 0; i < p.row_tiles; i += 2) {
        for (std::int64_t k = p.k_begin; k < p.k_end; k += k_block) {
            const std::int64_t steps = std::min(k_block, p.k_end - k);
            const bool first = p.first && k == p.k_begin;
            const std::byte* a = p.a + i * a_row + k * tile_bytes;
            for (std::int64_t j = 0; j < p.col_tiles; j += 2) {
                const std::byte* b = p.b + j * b_col + (k - p.k_begin) * tile_bytes;
                float* at = c + 16 * (i * ldc + j);
                const bool two_rows = i + 1 < p.row_tiles, two_cols = j + 1 < p.col_tiles;
                const auto run =
                    two_rows ? (two_cols ? &block<2, 2> : &block<2, 1>) : (two_cols ? &block<1, 2> : &block<1, 1>);
                run(a, a_row, b, b_col, steps, at, ldc, first);
            }
        }
    }
}

double dot(const float* a, const float* b, std::int64_t n) {
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    for (std::int64_t i = 0; i < n; i += 16) {
        low = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i)), low);
        high = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8)), _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8)),
                               high);
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

}  // namespace geom::amx
