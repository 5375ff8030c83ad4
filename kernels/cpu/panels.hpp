// Products of head blocks by vector instructions. A block of `rows` x `cols` is kept in panels of 16 rows, whose
// columns lie one after the other, in units of 4 bytes: one f32, or two neighbouring bf16 of a row; padded with zeros.
//
//   panel 0, rows 0..15:   u(0,0) u(1,0) ... u(15,0) | u(0,1) u(1,1) ... u(15,1) | ...     u(row, unit): 64 bytes a
//   step panel 1, rows 16..31:  u(16,0) ...
//
// Both operands of C = A B^T are kept alike. A step of A's panel gives rows to spread over a vector, one of B's panel
// gives vectors of 16 columns of C: nothing is transposed or copied but what has to be widened.
//
// An element of C is summed over runs of run_cols columns, one fused multiply-add after the other, of a pair of bf16
// the second one first, as vdpbf16ps does; then over the runs. So its bits depend on two rows and D alone, and are the
// same with AVX2, AVX-512, AVX512-BF16 and NEON's f32; so are those of dot(). BFMMLA adds the products of four columns
// at a time, rounding each sum to odd, so its bits are its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace geom::panels {

inline constexpr std::int64_t rows_of_panel = 16;
inline constexpr std::int64_t unit_bytes = 4;
inline constexpr std::int64_t step_bytes = rows_of_panel * unit_bytes;
inline constexpr std::int64_t run_cols = 512;

/// Some steps of every panel of a block, panels `stride` bytes apart.
struct Operand {
    const std::byte* data = nullptr;
    std::int64_t stride = 0;
};

/// C (+)= A B^T over `units` steps; both have `panels` panels. `first` starts from zero.
struct Product {
    Operand a, b;
    std::int64_t panels = 0;
    std::int64_t units = 0;
    bool first = false;
};

/// One instruction set's.
struct Kernels {
    bool pairs;  ///< units that are multiplied are two bf16, else one f32

    /// c is (16 panels) x (16 panels), row-major.
    void (*accumulate)(const Product& product, float* c);

    /// `steps` steps of bf16 pairs into twice as many of f32, the second of a pair first. Exact.
    void (*widen)(const std::byte* from, std::int64_t steps, float* to);

    /// sum_i a_i b_i in f64 (every product is exact), n a multiple of 16; order fixed by n.
    double (*dot)(const float* a, const float* b, std::int64_t n);
};

/// What HeadBlockFormat::path names: "avx2-f32", "avx512-f32", "avx512-bf16", "neon-f32", "neon-bf16"; null for other
/// paths and architectures.
const Kernels* kernels_of(std::string_view path);

/// `rows` rows of `row_bytes` each, one after the other, into panels.
void pack(const std::byte* source, std::int64_t rows, std::int64_t row_bytes, std::byte* out);

}  // namespace geom::panels
