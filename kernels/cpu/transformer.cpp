#include "kernels/cpu/transformer.hpp"

#include <algorithm>
#include <cmath>

#include "core/dtype.hpp"
#include "kernels/choose_experts.hpp"
#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/lane_product.hpp"
#include "kernels/cpu/stored_rows.hpp"
#include "kernels/cpu/token_panels.hpp"

namespace geom::cpu {

namespace {

using lanes::width;

constexpr std::int64_t logit_tiles = 64;  // of lm_head: summed side by side

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int64_t tiles_of(std::int64_t rows) { return (rows + product_tile - 1) / product_tile; }

Range tile_range(std::int64_t tile, std::int64_t rows) {
    return {tile * product_tile, std::min(rows, (tile + 1) * product_tile)};
}

MatrixRef rows_of(const MatrixRef& w, Range rows) {
    return {w.data + rows.begin * w.cols * size_of(w.dtype), w.dtype, rows.size(), w.cols};
}

/// One row (a norm's weight, a bias) in f32.
std::vector<float> row_of(const MatrixRef& w) {
    std::vector<float> row(at(w.cols));
    to_f32(w, {0, w.cols}, row.data(), w.cols);
    return row;
}

/// Memory of add_logits besides: a tile's logits, and what each tile of a round leaves of every lane.
std::int64_t logits_floats(std::int64_t tokens) { return panels_of(tokens) * width * product_tile; }
std::int64_t left_floats(std::int64_t tokens) { return logit_tiles * 2 * panels_of(tokens) * width; }

}  // namespace

CpuTransformer::CpuTransformer(Workers& workers, Isa isa)
    : workers_(workers), products_(isa), scratch_(at(workers.size() + 2)) {}

void CpuTransformer::use(ForwardProducts products) { products_.use(products); }

std::string CpuTransformer::do_path(DType weights) const { return products_.path(weights); }

std::int64_t CpuTransformer::activation_bytes(std::int64_t tokens, std::int64_t numbers) const {
    return panels_of(tokens) * width * numbers * 4;
}

std::int64_t CpuTransformer::cache_bytes(const KeysAndValues& sizes) const { return 4 * cache_floats(sizes); }

std::int64_t CpuTransformer::scratch_bytes(std::int64_t tokens, std::int64_t widest, std::int64_t /*head_dim*/) const {
    const std::int64_t of_thread =
        std::max(products_.tile_floats(tokens, widest) + logits_floats(tokens), attention_scratch);
    return 4 *
           (workers_.size() * of_thread + left_floats(tokens) + products_.terms_floats(tokens, widest, DType::bf16));
}

float* CpuTransformer::scratch_of(int worker, std::int64_t floats) {
    Buffer& mine = scratch_[static_cast<std::size_t>(worker)];
    if (mine.size() < 4 * floats) {
        mine = Buffer();
        mine = allocate_host(4 * floats);
    }
    return mine.as<float>();
}

void CpuTransformer::do_embed(const MatrixRef& rows, std::int64_t first_row, std::span<const std::int32_t> ids,
                              float* stream) {
    workers_.for_each(std::ssize(ids), [&](std::int64_t i, int) {
        const std::int64_t row = ids[at(i)] - first_row;
        if (row < 0 || row >= rows.rows) return;
        to_f32(rows_of(rows, {row, row + 1}), {0, rows.cols}, stream + i * rows.cols, rows.cols);
    });
}

void CpuTransformer::do_rms_norm(const float* stream, const MatrixRef& weight, double eps, const Activations& out) {
    const std::vector<float> factors = row_of(weight);
    workers_.for_each(panels_of(out.tokens),
                      [&](std::int64_t p, int) { norm_panel(stream, factors.data(), eps, out, p); });
}

/// What x is split in, where such weights want that.
float* CpuTransformer::terms_of(const Activations& x, DType weights) {
    if (!products_.splits(weights)) return nullptr;
    float* terms = scratch_of(workers_.size() + 1, products_.terms_floats(x.tokens, x.width, weights));
    workers_.for_each(panels_of(x.tokens), [&](std::int64_t p, int) { products_.split_panel(x, p, terms); });
    return terms;
}

void CpuTransformer::do_product(const Activations& x, const MatrixRef& w, const MatrixRef* bias,
                                const Activations& out) {
    const std::vector<float> added = bias != nullptr ? row_of(*bias) : std::vector<float>();
    const float* terms = terms_of(x, w.dtype);
    workers_.for_each(tiles_of(w.rows), [&](std::int64_t tile, int worker) {
        const Range rows = tile_range(tile, w.rows);
        float* to = out.data + rows.begin * width;
        products_.multiply({x, terms, rows_of(w, rows), to, panel_stride(out)},
                           scratch_of(worker, products_.tile_floats(x.tokens, x.width)));
        if (bias == nullptr) return;
        for (std::int64_t p = 0; p < panels_of(x.tokens); ++p) {
            float* numbers = to + p * panel_stride(out);
            for (std::int64_t i = 0; i < rows.size() * width; ++i) numbers[i] += added[at(rows.begin + i / width)];
        }
    });
}

void CpuTransformer::do_rotate(const Activations& x, const HeadTurn& turn) {
    const std::vector<float> norm = turn.norm != nullptr ? row_of(*turn.norm) : std::vector<float>();
    workers_.for_each(panels_of(x.tokens), [&](std::int64_t p, int) {
        rotate_panel(x, turn, turn.norm != nullptr ? norm.data() : nullptr, p);
    });
}

void CpuTransformer::do_append(const Activations& k, const Activations& v, std::int64_t first,
                               const KeysAndValues& cache) {
    workers_.for_each(panels_of(k.tokens), [&](std::int64_t p, int) {
        const std::int64_t token = first + p * width, dims = cache.head_dim;
        for (std::int64_t head = 0; head < cache.kv_heads; ++head) {
            const HeadCache to = head_cache(cache, head);
            transpose_panel(panel_of(k, p) + head * dims * width, dims, tokens_in(k, p), to.keys + token * dims, dims);
            const float* from = panel_of(v, p) + head * dims * width;
            float* values = to.values + token / key_block * key_block * dims + token % key_block;
            for (std::int64_t i = 0; i < dims; ++i)
                std::copy_n(from + i * width, tokens_in(v, p), values + i * key_block);
        }
    });
}

void CpuTransformer::do_attend(const Activations& q, const KeysAndValues& cache, std::int64_t first,
                               const Activations& out) {
    const std::int64_t heads = q.width / cache.head_dim, panels = panels_of(q.tokens);
    const std::int64_t parts = (panels + query_panels - 1) / query_panels;
    workers_.for_each(heads * parts, [&](std::int64_t i, int worker) {
        const std::int64_t p = i % parts * query_panels;
        cpu::attend(q, cache, {i / parts, p, std::min(query_panels, panels - p), first}, products_.kernels(), out,
                    scratch_of(worker, attention_scratch));
    });
}

void CpuTransformer::do_gate(const Activations& gate, const Activations& up) {
    workers_.for_each(panels_of(gate.tokens), [&](std::int64_t p, int) {
        products_.kernels().swiglu(panel_of(gate, p), panel_of(up, p), gate.width);
    });
}

void CpuTransformer::do_add(const Activations& y, float* stream) {
    workers_.for_each(panels_of(y.tokens), [&](std::int64_t p, int) { add_panel(y, p, stream); });
}

void CpuTransformer::do_route(const Activations& x, const MatrixRef& router, const Routing& routing,
                              std::span<std::int32_t> experts, std::span<float> weights) {
    const Activations logits{shared(panels_of(x.tokens) * width * router.rows), x.tokens, router.rows};
    do_product(x, router, nullptr, logits);
    workers_.for_each(x.tokens, [&](std::int64_t token, int) {
        const std::int64_t begin = token * routing.per_token;
        const float* of_token = panel_of(logits, token / width) + token % width;
        choose_experts({of_token, width, router.rows}, routing, &experts[at(begin)], &weights[at(begin)]);
    });
}

void CpuTransformer::do_gather(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out) {
    workers_.for_each(panels_of(out.tokens), [&](std::int64_t p, int) { gather_panel(x, tokens, out, p); });
}

void CpuTransformer::do_add_scaled(const Activations& y, std::span<const std::int32_t> tokens,
                                   std::span<const float> weights, float* stream) {
    workers_.for_each(panels_of(y.tokens),
                      [&](std::int64_t p, int) { add_scaled_panel(y, tokens, weights, p, stream); });
}

// Rounds of logit_tiles tiles; then every token's numbers of a round, in the order of the tiles.
void CpuTransformer::do_add_logits(const Activations& x, const MatrixRef& rows, std::int64_t first_row,
                                   std::span<const std::int32_t> wanted, const LogSumExp& kept) {
    const std::int64_t padded = panels_of(x.tokens) * width;
    float* left = shared(left_floats(x.tokens));
    const float* terms = terms_of(x, rows.dtype);
    for (std::int64_t begin = 0; begin < tiles_of(rows.rows); begin += logit_tiles) {
        const std::int64_t tiles = std::min(logit_tiles, tiles_of(rows.rows) - begin);
        workers_.for_each(tiles, [&](std::int64_t i, int worker) {
            const Range range = tile_range(begin + i, rows.rows);
            const std::int64_t of_tile = products_.tile_floats(x.tokens, x.width);
            float *scratch = scratch_of(worker, of_tile + logits_floats(x.tokens)), *logits = scratch + of_tile;
            products_.multiply({x, terms, rows_of(rows, range), logits, product_tile * width}, scratch);
            float *largest = left + 2 * i * padded, *sum = largest + padded;
            for (std::int64_t token = 0; token < padded; token += width)
                products_.kernels().exp_sum(logits + token * product_tile, range.size(), largest + token, sum + token);
            for (std::int64_t token = 0; token < x.tokens; ++token) {
                const std::int64_t row = wanted[at(token)] - first_row - range.begin;
                if (wanted[at(token)] < 0 || row < 0 || row >= range.size()) continue;
                kept.wanted[at(token)] =
                    static_cast<double>(logits[token / width * product_tile * width + row * width + token % width]);
            }
        });
        workers_.for_each(x.tokens, [&](std::int64_t token, int) {
            double &most = kept.largest[at(token)], &sum = kept.sum[at(token)];
            const double before = most;
            for (std::int64_t i = 0; i < tiles; ++i)
                most = std::max(most, static_cast<double>(left[2 * i * padded + token]));
            sum *= std::exp(before - most);
            for (std::int64_t i = 0; i < tiles; ++i) {
                const float* of_tile = left + 2 * i * padded + token;
                sum += static_cast<double>(of_tile[padded]) * std::exp(static_cast<double>(of_tile[0]) - most);
            }
        });
    }
}

}  // namespace geom::cpu
