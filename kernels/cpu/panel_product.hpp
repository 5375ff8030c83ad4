// accumulate() of panels.hpp for any vector: what a file gives as Vector says which instructions are used. Vector has
// to be of an unnamed namespace, and nothing else inline may be called here: the linker keeps one copy of it for all
// files, and that could be one with instructions that the processor does not have.
//
// A block of C, Vector::rows rows x up to 3 vectors, stays in registers over a run of units. Per unit it takes rows +
// vectors loads, and one ahead, for rows x vectors products:
//
//                          registers   loads : products   at two of either a cycle
//   AVX-512   8 x 3 of 16    24 + 4         12 : 24        bound by products
//   AVX2      4 x 3 of  8    12 + 4          8 : 12        bound by products
//   NEON      8 x 3 of  4    24 + 4         12 : 24        (of 32 registers)
//
// B's vectors of a run (bf16, AVX-512: 48 columns of C x 256 units = 48 KiB) are used for all rows of A, which come
// from the second cache level at 32 bytes for 24 products, and the first time from farther away: the panel after the
// one that is multiplied is fetched meanwhile. The processor's own prefetching stops at each 4 KiB, a quarter of a
// panel's run; left to it, a tenth of the rate was lost.
#pragma once

#include "core/range.hpp"
#include "kernels/cpu/panels.hpp"

namespace geom::panels {

// A block of C: rows `stride` elements apart, which `first` overwrites.
struct Sums {
    float* data;
    std::int64_t stride;
    bool first;
};

// Where neighbouring vectors of B have their first step.
template <int vectors>
struct Columns {
    const std::byte* at[vectors];
};

template <class Vector, int vectors>
inline Columns<vectors> columns_from(const Operand& b, std::int64_t first) {
    constexpr std::int64_t of_panel = rows_of_panel / Vector::width;
    Columns<vectors> columns;
    for (int v = 0; v < vectors; ++v) {
        const std::int64_t j = first + v;
        columns.at[v] = b.data + j / of_panel * b.stride + j % of_panel * Vector::width * unit_bytes;
    }
    return columns;
}

// A block's sums, over `units`. Meanwhile what lies at `ahead` of A's steps is fetched.
template <class Vector, int vectors>
inline void multiply_block(const std::byte* a, std::int64_t ahead, const Columns<vectors> b, Range units, Sums c) {
    constexpr int rows = Vector::rows;
    typename Vector::Register sums[rows][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) sums[i][v] = Vector::zero();
    }
    for (std::int64_t at = units.begin * step_bytes; at < units.end * step_bytes; at += step_bytes) {
        __builtin_prefetch(a + ahead + at);
        typename Vector::Register right[vectors];
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) right[v] = Vector::load(b.at[v] + at);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const typename Vector::Register left = Vector::spread(a + at + i * unit_bytes);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; ++v) sums[i][v] = Vector::multiply_add(left, right[v], sums[i][v]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) {
            float* at = c.data + i * c.stride + v * Vector::width;
            Vector::store(at, c.first ? sums[i][v] : Vector::add(Vector::load_sums(at), sums[i][v]));
        }
    }
}

// All rows of some columns of C, from vector j on.
template <class Vector, int vectors>
inline void multiply_columns(const Product& p, std::int64_t j, Range units, float* c) {
    const Columns<vectors> columns = columns_from<Vector, vectors>(p.b, j);
    Sums sums{c + j * Vector::width, p.panels * rows_of_panel, p.first && units.begin == 0};
    const std::int64_t ahead = j == 0 ? p.a.stride : 0;  // afterwards it is near
    for (std::int64_t panel = 0; panel < p.panels; ++panel) {
        const std::byte* a = p.a.data + panel * p.a.stride;
        for (int row = 0; row < rows_of_panel; row += Vector::rows) {
            multiply_block<Vector, vectors>(a + row * unit_bytes, ahead, columns, units, sums);
            sums.data += Vector::rows * sums.stride;
        }
    }
}

template <class Vector>
void accumulate(const Product& p, float* c) {
    constexpr std::int64_t run = run_cols / Vector::cols_of_unit;
    const std::int64_t columns = p.panels * (rows_of_panel / Vector::width);  // in vectors
    for (std::int64_t k = 0; k < p.units; k += run) {
        const Range units{k, p.units - k < run ? p.units : k + run};
        for (std::int64_t j = 0; j < columns;) {
            const std::int64_t left = columns - j;
            if (left == 3 || left > 4) {
                multiply_columns<Vector, 3>(p, j, units, c);
                j += 3;
            } else if (left > 1) {  // 4 = 2 + 2: a single vector's products would wait for each other
                multiply_columns<Vector, 2>(p, j, units, c);
                j += 2;
            } else {
                multiply_columns<Vector, 1>(p, j, units, c);
                j += 1;
            }
        }
    }
}

}  // namespace geom::panels
