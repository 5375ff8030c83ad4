// Products of head blocks on the CPU, a few layers at a time, and their dots: one loop for gram and for match.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.hpp"
#include "kernels/head_products.hpp"
#include "kernels/workers.hpp"

namespace geom::cpu {

/// See HeadProducts::format; the path is the fastest that `isa` has:
///
///               amx_bf16   avx512_bf16    avx512         avx2         portable
///   bf16        amx-bf16   avx512-bf16    avx512-f32     avx2-f32     sgemm-bf16
///   f16, f32    avx512-f32 avx512-f32     avx512-f32     avx2-f32     sgemm
///   f64         dgemm      everywhere
HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden, Isa isa);

/// Blocks, and what their columns are multiplied by; nothing without memory.
struct BlocksToPack {
    std::span<const MatrixRef> blocks;
    MatrixRef columns = {};
};

/// See HeadProducts::pack.
void pack_head_blocks(const BlocksToPack& what, const HeadBlockFormat& format, std::span<std::byte* const> out,
                      Workers& workers);

/// See HeadProducts::tile_dots.
void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out, Workers& workers);

/// See HeadProducts::cross_dots; `place` is place_in(left, right). Nothing is written for pairs that are not computed.
void cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, std::int64_t place,
                const HeadBlockFormat& format, std::span<double> out, Workers& workers);

/// Scratch of one thread, in bytes, of either.
std::int64_t tile_dots_scratch(const HeadBlockFormat& format);

}  // namespace geom::cpu
