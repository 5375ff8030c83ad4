// Products of bf16 as stored with BFMMLA, which adds to a 2 x 2 block of C the products of two rows of A and two of B
// over four columns. Two neighbouring steps of a panel, zipped, are what it takes:
//
//   step k      r0 r1 r2 r3     (a pair of columns of each row)
//   step k+1    s0 s1 s2 s3            zip1: r0 s0 r1 s1    zip2: r2 s2 r3 s3
//
// 8 x 8 of C stay in 16 registers over a run; per two steps 8 loads and 8 zips serve 16 products. Within a run an
// element is summed four columns at a time, each sum rounded to odd; numbers below 2^-126 count as zero.
#include <arm_neon.h>

#include "core/range.hpp"
#include "kernels/cpu/arm/neon_dot.hpp"
#include "kernels/cpu/panel_kernels.hpp"

namespace geom::panels {

namespace {

constexpr int rows_of_block = 8;
constexpr std::int64_t run_units = run_cols / 2;

// Two rows of each register, of 8 rows and two steps; the second step is zero behind the last.
struct Rows {
    bfloat16x8_t of[rows_of_block / 2];
};

Rows load_rows(const std::byte* step, bool both) {
    Rows rows;
    for (int half = 0; half < 2; ++half) {
        const auto* at = reinterpret_cast<const std::uint32_t*>(step + 4 * half * unit_bytes);
        const uint32x4_t now = vld1q_u32(at);
        const uint32x4_t next = both ? vld1q_u32(at + step_bytes / unit_bytes) : vdupq_n_u32(0);
        rows.of[2 * half] = vreinterpretq_bf16_u32(vzip1q_u32(now, next));
        rows.of[2 * half + 1] = vreinterpretq_bf16_u32(vzip2q_u32(now, next));
    }
    return rows;
}

// 8 x 8 of C, rows `stride` elements apart.
void multiply_block(const std::byte* a, const std::byte* b, Range units, bool first, float* c, std::int64_t stride) {
    constexpr int pairs = rows_of_block / 2;
    float32x4_t sums[pairs][pairs];
    for (auto& row : sums) {
        for (float32x4_t& sum : row) sum = vdupq_n_f32(0.0F);
    }
    for (std::int64_t k = units.begin; k < units.end; k += 2) {
        const Rows left = load_rows(a + k * step_bytes, k + 1 < units.end);
        const Rows right = load_rows(b + k * step_bytes, k + 1 < units.end);
#pragma GCC unroll 4
        for (int i = 0; i < pairs; ++i) {
#pragma GCC unroll 4
            for (int j = 0; j < pairs; ++j) sums[i][j] = vbfmmlaq_f32(sums[i][j], left.of[i], right.of[j]);
        }
    }
    for (int i = 0; i < pairs; ++i) {
        for (int j = 0; j < pairs; ++j) {
            for (int row = 0; row < 2; ++row) {
                float* at = c + (2 * i + row) * stride + 2 * j;
                const float32x2_t sum = row == 0 ? vget_low_f32(sums[i][j]) : vget_high_f32(sums[i][j]);
                vst1_f32(at, first ? sum : vadd_f32(vld1_f32(at), sum));
            }
        }
    }
}

void accumulate(const Product& p, float* c) {
    const std::int64_t side = p.panels * rows_of_panel;
    const auto at = [](const Operand& x, std::int64_t row) {
        return x.data + row / rows_of_panel * x.stride + row % rows_of_panel * unit_bytes;
    };
    for (std::int64_t k = 0; k < p.units; k += run_units) {
        const Range units{k, p.units - k < run_units ? p.units : k + run_units};
        for (std::int64_t j = 0; j < side; j += rows_of_block) {
            for (std::int64_t i = 0; i < side; i += rows_of_block)
                multiply_block(at(p.a, i), at(p.b, j), units, p.first && k == 0, c + i * side + j, side);
        }
    }
}

}  // namespace

const Kernels neon_bf16 = {true, accumulate, nullptr, dot};

}  // namespace geom::panels
