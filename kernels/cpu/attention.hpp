// Attention of one query head for up to three panels of queries: softmax over blocks of keys, one after the other, so
// that memory does not grow with the text (Milakov and Gimelshein 2018; Dao et al. 2022). Earlier blocks' numbers are
// shrunk when a block has a larger score.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.hpp"
#include "kernels/transformer.hpp"

namespace geom::cpu {

inline constexpr std::int64_t key_block = 128;
inline constexpr std::int64_t query_panels = 3;

/// Where a head's keys and values lie: keys [token, dimension], values [block, dimension, token of the block].
struct HeadCache {
    float* keys = nullptr;
    float* values = nullptr;
};
HeadCache head_cache(const KeysAndValues& cache, std::int64_t kv_head);
std::int64_t cache_floats(const KeysAndValues& sizes);

/// Some panels of one head, all of out's head from panel `panel` on. `scratch` has attention_scratch floats.
struct AttentionPart {
    std::int64_t head = 0;
    std::int64_t panel = 0;
    std::int64_t panels = 0;  ///< at most query_panels
    std::int64_t first = 0;   ///< position of the chunk's first token
};
void attend(const Activations& q, const KeysAndValues& cache, const AttentionPart& part, const lanes::Kernels& kernels,
            const Activations& out, float* scratch);
inline constexpr std::int64_t attention_scratch = query_panels * lanes::width * (key_block + 3);

}  // namespace geom::cpu
