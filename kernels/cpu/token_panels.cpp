#include "kernels/cpu/token_panels.hpp"

#include <array>
#include <cmath>

namespace geom::cpu {

namespace {

constexpr std::int64_t side = lanes::width;
using Row = std::array<float, lanes::width>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// 1 / sqrt(mean of squares + eps) of a row; 16 sums side by side, then in f64.
float inverse_norm(const float* row, std::int64_t width, double eps) {
    Row sums{};
    for (std::int64_t i = 0; i < width; i += side) {
        const std::int64_t here = std::min(side, width - i);
        for (std::int64_t j = 0; j < here; ++j) sums[at(j)] += row[i + j] * row[i + j];
    }
    double sum = 0.0;
    for (const float part : sums) sum += static_cast<double>(part);
    return static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(width) + eps));
}

}  // namespace

void norm_panel(const float* stream, const float* weight, double eps, const Activations& out, std::int64_t p) {
    const std::int64_t tokens = tokens_in(out, p), width = out.width;
    const float* rows = stream + p * side * width;
    Row factor{};
    for (std::int64_t t = 0; t < tokens; ++t) factor[at(t)] = inverse_norm(rows + t * width, width, eps);
    float* to = panel_of(out, p);
    std::array<Row, lanes::width> block{};
    for (std::int64_t i = 0; i < width; i += side) {
        const std::int64_t here = std::min(side, width - i);
        for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t j = 0; j < here; ++j) block[at(j)][at(t)] = rows[t * width + i + j];
        }
        for (std::int64_t j = 0; j < here; ++j, to += side) {
            for (std::int64_t t = 0; t < side; ++t) to[t] = weight[i + j] * (block[at(j)][at(t)] * factor[at(t)]);
        }
    }
}

void rotate_panel(const Activations& x, const HeadTurn& turn, const float* norm, std::int64_t p) {
    const std::int64_t half = turn.head_dim / 2, first = turn.first + p * side;
    const float *cosines = turn.table + first, *sines = cosines + half * turn.positions;
    float* head = panel_of(x, p);
    for (const float* end = head + panel_stride(x); head < end; head += turn.head_dim * side) {
        Row factor;
        factor.fill(1.0F);
        if (norm != nullptr) {
            Row sums{};
            for (std::int64_t i = 0; i < turn.head_dim; ++i) {
                for (std::int64_t t = 0; t < side; ++t) sums[at(t)] += head[i * side + t] * head[i * side + t];
            }
            for (std::int64_t t = 0; t < side; ++t) {
                const double mean = static_cast<double>(sums[at(t)]) / static_cast<double>(turn.head_dim);
                factor[at(t)] = static_cast<float>(1.0 / std::sqrt(mean + turn.eps));
            }
        }
        for (std::int64_t i = 0; i < half; ++i) {
            float *low = head + i * side, *high = low + half * side;
            const float low_weight = norm != nullptr ? norm[i] : 1.0F,
                        high_weight = norm != nullptr ? norm[half + i] : 1.0F;
            for (std::int64_t t = 0; t < side; ++t) {
                const float c = cosines[i * turn.positions + t], s = sines[i * turn.positions + t];
                const float a = low_weight * (low[t] * factor[at(t)]), b = high_weight * (high[t] * factor[at(t)]);
                low[t] = a * c - b * s;
                high[t] = b * c + a * s;
            }
        }
    }
}

void transpose_panel(const float* p, std::int64_t count, std::int64_t tokens, float* to, std::int64_t stride) {
    for (std::int64_t i = 0; i < count; i += side) {
        const std::int64_t here = std::min(side, count - i);
        for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t j = 0; j < here; ++j) to[t * stride + i + j] = p[(i + j) * side + t];
        }
    }
}

void add_panel(const Activations& y, std::int64_t p, float* stream) {
    const std::int64_t tokens = tokens_in(y, p);
    const float* from = panel_of(y, p);
    float* rows = stream + p * side * y.width;
    for (std::int64_t i = 0; i < y.width; i += side) {
        const std::int64_t here = std::min(side, y.width - i);
        for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t j = 0; j < here; ++j) rows[t * y.width + i + j] += from[(i + j) * side + t];
        }
    }
}

void gather_panel(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out, std::int64_t p) {
    float* to = panel_of(out, p);
    std::fill(to, to + panel_stride(out), 0.0F);
    for (std::int64_t t = 0; t < tokens_in(out, p); ++t) {
        const std::int64_t token = tokens[at(p * side + t)];
        const float* from = panel_of(x, token / side) + token % side;
        for (std::int64_t i = 0; i < x.width; ++i) to[i * side + t] = from[i * side];
    }
}

void add_scaled_panel(const Activations& y, std::span<const std::int32_t> tokens, std::span<const float> weights,
                      std::int64_t p, float* stream) {
    const float* from = panel_of(y, p);
    for (std::int64_t t = 0; t < tokens_in(y, p); ++t) {
        const std::size_t which = at(p * side + t);
        float* row = stream + tokens[which] * y.width;
        for (std::int64_t i = 0; i < y.width; ++i) row[i] += weights[which] * from[i * side + t];
    }
}

}  // namespace geom::cpu
