// Attention of a chunk of queries over blocks of 64 keys with a running softmax (Milakov and Gimelshein 2018; Dao et
// al. 2022), in f32. A block of 256 threads takes 16 queries of a head: scores of 16 x 64 in shared memory, 4 a thread;
// a warp reduces 2 queries' rows; the output, 16 x head_dim, stays in registers, head_dim / 16 a thread.
//
//   shared memory at head_dim 128: queries 8 KB, keys or values 33 KB (rows a word longer: no bank conflicts), scores 4
//   KB
//
// Flops: 4 head_dim a query and key, of f32 units; bytes: keys and values once for 16 queries, from L2. Error of a
// score: head_dim eps |q| |k|, of an output: (keys / 64 + 64) eps max |v|.
#include <cmath>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/transformer_kernels.hpp"

namespace geom::cuda {

namespace {

constexpr int queries_at_once = 16, keys_at_once = 64;
constexpr int own_outputs = longest_head / 16;  // of a thread, at most
constexpr int own_scores = queries_at_once * keys_at_once / block_threads;

struct Attention {
    Activations q;
    KeysAndValues cache;
    std::int64_t first;
    float scale;
    float* out;
};

/// Rows [begin, begin + count) of [rows, head_dim], `stride` apart there and head_dim + 1 here; missing ones are zero.
__device__ void load_rows(const float* from, std::int64_t stride, int count, int rows, int head_dim, float* to) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * head_dim; i += block_threads) {
        const int row = i / head_dim, column = i % head_dim;
        to[row * (head_dim + 1) + column] = row < count ? from[row * stride + column] : 0.0F;
    }
}

__global__ void __launch_bounds__(block_threads) attend_kernel(Attention of) {
    __shared__ float scores[queries_at_once][keys_at_once];
    __shared__ float largest[queries_at_once], sum[queries_at_once], shrink[queries_at_once];
    const int head_dim = static_cast<int>(of.cache.head_dim), row_length = head_dim + 1;
    float* const queries = dynamic_shared<float>();
    float* const rows = queries + queries_at_once * row_length;
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
    const std::int64_t heads = of.q.width / head_dim, head = blockIdx.x, kv = head / (heads / of.cache.kv_heads);
    const std::int64_t begin = std::int64_t{blockIdx.y} * queries_at_once;
    const int here = static_cast<int>(of.q.tokens - begin < queries_at_once ? of.q.tokens - begin : queries_at_once);
    const float* const keys = of.cache.data + kv * of.cache.capacity * head_dim;
    const float* const values = keys + of.cache.kv_heads * of.cache.capacity * head_dim;
    load_rows(of.q.data + begin * of.q.width + head * head_dim, of.q.width, here, queries_at_once, head_dim, queries);
    if (thread < queries_at_once) {
        largest[thread] = -INFINITY;
        sum[thread] = 0.0F;
    }
    float outputs[own_outputs] = {};
    const int query_of_thread = thread / 16, first_output = thread % 16;
    const std::int64_t end = of.first + begin + here;
    for (std::int64_t key = 0; key < end; key += keys_at_once) {
        const int count = static_cast<int>(end - key < keys_at_once ? end - key : keys_at_once);
        __syncthreads();
        load_rows(keys + key * head_dim, head_dim, count, keys_at_once, head_dim, rows);
        __syncthreads();
        for (int i = 0; i < own_scores; ++i) {
            const int place = thread + i * block_threads, query = place / keys_at_once, column = place % keys_at_once;
            float score = 0.0F;
            for (int d = 0; d < head_dim; ++d)
                score = fmaf(queries[query * row_length + d], rows[column * row_length + d], score);
            const bool seen = column < count && key + column <= of.first + begin + query;
            scores[query][column] = seen ? score * of.scale : -INFINITY;
        }
        __syncthreads();
        load_rows(values + key * head_dim, head_dim, count, keys_at_once, head_dim, rows);
        for (int query = 2 * warp; query < 2 * warp + 2; ++query) {
            const float a = scores[query][lane], b = scores[query][lane + 32], before = largest[query];
            float most = larger(larger(a, b), before);
            for (int away = 16; away > 0; away /= 2) most = larger(most, __shfl_xor_sync(0xffffffffU, most, away));
            const float ea = expf(a - most), eb = expf(b - most);
            float both = ea + eb;
            for (int away = 16; away > 0; away /= 2) both += __shfl_xor_sync(0xffffffffU, both, away);
            scores[query][lane] = ea;
            scores[query][lane + 32] = eb;
            if (lane == 0) {
                shrink[query] = expf(before - most);
                sum[query] = sum[query] * shrink[query] + both;
                largest[query] = most;
            }
        }
        __syncthreads();
        for (int i = 0; i < own_outputs; ++i) {
            const int d = first_output + 16 * i;
            if (d >= head_dim) break;
            float output = outputs[i] * shrink[query_of_thread];
            for (int column = 0; column < count; ++column)
                output = fmaf(scores[query_of_thread][column], rows[column * row_length + d], output);
            outputs[i] = output;
        }
    }
    if (query_of_thread >= here) return;
    float* const to = of.out + (begin + query_of_thread) * of.q.width + head * head_dim;
    for (int i = 0; i < own_outputs; ++i) {
        const int d = first_output + 16 * i;
        if (d < head_dim) to[d] = outputs[i] / sum[query_of_thread];
    }
}

}  // namespace

void attend(const Activations& q, const KeysAndValues& cache, std::int64_t first, const Activations& out,
            cudaStream_t queue) {
    const std::int64_t heads = q.width / cache.head_dim;
    const dim3 grid(static_cast<unsigned>(heads),
                    static_cast<unsigned>((q.tokens + queries_at_once - 1) / queries_at_once));
    const auto shared =
        static_cast<std::size_t>((queries_at_once + keys_at_once) * (cache.head_dim + 1)) * sizeof(float);
    const float scale = 1.0F / std::sqrt(static_cast<float>(cache.head_dim));
    launch("attend", attend_kernel, {grid, block_threads, shared}, queue, Attention{q, cache, first, scale, out.data});
}

}  // namespace geom::cuda
