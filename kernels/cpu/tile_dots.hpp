// gram's inner loop on the CPU: products of head blocks, a few layers at a time, and their dots.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/head_products.hpp"
#include "kernels/workers.hpp"

namespace geom::cpu {

/// See HeadProducts::format; AMX is used when `amx` is true.
HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden, bool amx);

/// See HeadProducts::pack.
void pack_head_blocks(std::span<const MatrixRef> blocks, const HeadBlockFormat& format, std::span<std::byte* const> out,
                      Workers& workers);

/// See HeadProducts::tile_dots.
void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out, Workers& workers);

/// Scratch of one thread, in bytes.
std::int64_t tile_dots_scratch(const HeadBlockFormat& format);

}  // namespace geom::cpu
