// Nothing inline from a shared header may be called here: the linker could keep this file's copy of it for all.
#include <immintrin.h>

#include "kernels/cpu/gram_tiles.hpp"

namespace geom::cpu {

namespace {

constexpr std::int64_t lanes = 8, left_registers = slab_rows / lanes, right_columns = 8;

/// c[0 .. 23] of 8 columns: a slab times 8 of the numbers of another, over k in rising order.
void tile_product(const double* left, const double* right, std::int64_t width, double* c) {
    __m512d sums[right_columns][left_registers];
    for (auto& column : sums) {
        for (__m512d& sum : column) sum = _mm512_setzero_pd();
    }
    for (std::int64_t k = 0; k < width; ++k, left += slab_rows, right += slab_rows) {
        const __m512d a0 = _mm512_loadu_pd(left), a1 = _mm512_loadu_pd(left + lanes),
                      a2 = _mm512_loadu_pd(left + 2 * lanes);
#pragma GCC unroll 8
        for (std::int64_t j = 0; j < right_columns; ++j) {
            const __m512d b = _mm512_set1_pd(right[j]);
            sums[j][0] = _mm512_fmadd_pd(a0, b, sums[j][0]);
            sums[j][1] = _mm512_fmadd_pd(a1, b, sums[j][1]);
            sums[j][2] = _mm512_fmadd_pd(a2, b, sums[j][2]);
        }
    }
#pragma GCC unroll 8
    for (std::int64_t j = 0; j < right_columns; ++j) {
#pragma GCC unroll 3
        for (std::int64_t i = 0; i < left_registers; ++i) _mm512_storeu_pd(c + j * slab_rows + i * lanes, sums[j][i]);
    }
}

/// Where a tile lies in the Gram matrix, and where its rows and columns end.
struct Place {
    std::int64_t row, col, row_end, col_end;
    bool lower;
};

/// The numbers of a tile, or those that lie on or below the diagonal.
void add_tile(const double* c, const Place& place, std::int64_t n, bool first, double* gram) {
    for (std::int64_t j = place.col; j < place.col_end; ++j) {
        const double* from = c + (j - place.col) * slab_rows - place.row;
        double* to = gram + j * n;
        for (std::int64_t i = place.lower && place.row < j ? j : place.row; i < place.row_end; ++i)
            to[i] = first ? from[i] : to[i] + from[i];
    }
}

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

}  // namespace

void pack_slabs(const Panel& panel, double* packed) {
    for (std::int64_t begin = 0; begin < panel.rows; begin += slab_rows, packed += slab_rows * panel.width) {
        const std::int64_t rows = smaller(slab_rows, panel.rows - begin);
        for (std::int64_t k = 0; k < panel.width; ++k) {
            const double* from = panel.data + begin * panel.row_step + k * panel.column_step;
            double* to = packed + k * slab_rows;
            for (std::int64_t i = 0; i < rows; ++i) to[i] = from[i * panel.row_step];
            for (std::int64_t i = rows; i < slab_rows; ++i) to[i] = 0.0;
        }
    }
}

void add_packed_product(const PackedPair& pair, std::int64_t n, bool first, double* gram) {
    alignas(64) double c[slab_rows * right_columns];
    const bool diagonal = pair.lower && pair.rows.begin == pair.cols.begin;
    for (std::int64_t col = pair.cols.begin; col < pair.cols.end; col += slab_rows) {
        const double* right = pair.right + (col - pair.cols.begin) * pair.width;
        for (std::int64_t row = diagonal ? col : pair.rows.begin; row < pair.rows.end; row += slab_rows) {
            const double* left = pair.left + (row - pair.rows.begin) * pair.width;
            for (std::int64_t j = col; j < smaller(col + slab_rows, pair.cols.end); j += right_columns) {
                tile_product(left, right + (j - col), pair.width, c);
                add_tile(c,
                         {row, j, smaller(row + slab_rows, pair.rows.end), smaller(j + right_columns, pair.cols.end),
                          pair.lower},
                         n, first, gram);
            }
        }
    }
}

}  // namespace geom::cpu
