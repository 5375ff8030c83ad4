#include "kernels/cpu/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/token_panels.hpp"

namespace geom::cpu {

namespace {

std::int64_t padded(std::int64_t capacity) { return (capacity + key_block - 1) / key_block * key_block; }

}  // namespace

std::int64_t cache_floats(const KeysAndValues& sizes) {
    return 2 * sizes.kv_heads * padded(sizes.capacity) * sizes.head_dim;
}

HeadCache head_cache(const KeysAndValues& cache, std::int64_t kv_head) {
    const std::int64_t of_head = padded(cache.capacity) * cache.head_dim;
    return {cache.data + kv_head * of_head, cache.data + (cache.kv_heads + kv_head) * of_head};
}

void attend(const Activations& q, const KeysAndValues& cache, const AttentionPart& part, const lanes::Kernels& kernels,
            const Activations& out, float* scratch) {
    const std::int64_t head_dim = cache.head_dim, group = q.width / head_dim / cache.kv_heads;
    const HeadCache kv = head_cache(cache, part.head / group);
    const std::int64_t of_head = part.head * head_dim * lanes::width, lanes_of_all = query_panels * lanes::width;
    float *scores = scratch, *largest = scores + key_block * lanes_of_all, *sum = largest + lanes_of_all,
          *shrink = sum + lanes_of_all;
    std::fill(largest, largest + lanes_of_all, -std::numeric_limits<float>::infinity());
    std::fill(sum, sum + lanes_of_all, 0.0F);
    const std::int64_t queries_end = std::min(q.tokens, (part.panel + part.panels) * lanes::width);
    const std::int64_t keys_end = part.first + queries_end;
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    for (std::int64_t key = 0; key < keys_end; key += key_block) {
        const std::int64_t keys = std::min(key_block, keys_end - key);
        kernels.multiply({kv.keys + key * head_dim, head_dim, keys, head_dim, panel_of(q, part.panel) + of_head,
                          panel_stride(q), part.panels, scores, key_block * lanes::width, true});
        for (std::int64_t p = 0; p < part.panels; ++p) {
            const std::int64_t lane = p * lanes::width;
            kernels.softmax({scores + lane * key_block, keys, key, part.first + (part.panel + p) * lanes::width, scale,
                             largest + lane, sum + lane, shrink + lane});
            if (key > 0) kernels.scale(panel_of(out, part.panel + p) + of_head, shrink + lane, head_dim);
        }
        kernels.multiply({kv.values + key * head_dim, key_block, head_dim, keys, scores, key_block * lanes::width,
                          part.panels, panel_of(out, part.panel) + of_head, panel_stride(out), key == 0});
    }
    for (std::int64_t i = 0; i < part.panels * lanes::width; ++i) sum[i] = 1.0F / sum[i];
    for (std::int64_t p = 0; p < part.panels; ++p)
        kernels.scale(panel_of(out, part.panel + p) + of_head, sum + p * lanes::width, head_dim);
}

}  // namespace geom::cpu
