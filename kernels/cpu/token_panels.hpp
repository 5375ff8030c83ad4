// Activations in panels of 16 tokens (lanes.hpp), a panel or a tile at a time on the calling thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/range.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/transformer.hpp"

namespace geom::cpu {

inline std::int64_t panels_of(std::int64_t tokens) { return (tokens + lanes::width - 1) / lanes::width; }

/// Numbers from one panel to the next.
inline std::int64_t panel_stride(const Activations& x) { return x.width * lanes::width; }

inline float* panel_of(const Activations& x, std::int64_t p) { return x.data + p * panel_stride(x); }

/// Tokens of a panel that are tokens.
inline std::int64_t tokens_in(const Activations& x, std::int64_t p) {
    return std::min(lanes::width, x.tokens - p * lanes::width);
}

/// One panel of rms_norm; `weight` is f32, out.width long.
void norm_panel(const float* stream, const float* weight, double eps, const Activations& out, std::int64_t p);

/// One panel of rotate; `norm` is f32, head_dim long, or null.
void rotate_panel(const Activations& x, const HeadTurn& turn, const float* norm, std::int64_t p);

/// One panel of add: stream += y.
void add_panel(const Activations& y, std::int64_t p, float* stream);

/// One panel of gather and of add_scaled.
void gather_panel(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out, std::int64_t p);
void add_scaled_panel(const Activations& y, std::span<const std::int32_t> tokens, std::span<const float> weights,
                      std::int64_t p, float* stream);

/// Some dimensions of a panel, row-major: to[token * stride + i] = panel[first + i], `tokens` tokens.
void transpose_panel(const float* p, std::int64_t count, std::int64_t tokens, float* to, std::int64_t stride);

}  // namespace geom::cpu
