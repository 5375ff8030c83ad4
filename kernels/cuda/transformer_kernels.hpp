// The kernels of CudaTransformer. Everything lies in the device's memory; activations and stream are row-major [tokens,
// width].
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/widen.hpp"
#include "kernels/transformer.hpp"

namespace geom::cuda {

/// Rows [first_row, first_row + rows) of a matrix, `width` wide.
struct EmbeddingRows {
    StoredRows rows;
    std::int64_t first_row = 0;
    std::int64_t count = 0;
    std::int64_t width = 0;
};
void embed(const EmbeddingRows& from, const std::int32_t* ids, std::int64_t tokens, float* stream, cudaStream_t queue);

void rms_norm(const float* stream, const StoredRows& weight, double eps, const Activations& out, cudaStream_t queue);

/// n numbers to f32, exactly but for f64, which is rounded.
void to_f32(const StoredRows& from, std::int64_t n, float* to, cudaStream_t queue);

/// x = sum of three bf16 terms, exactly; n numbers, terms n apart.
void split(const float* x, std::int64_t n, std::uint16_t* terms, cudaStream_t queue);

void add_bias(const StoredRows& bias, const Activations& out, cudaStream_t queue);

/// turn.norm is not looked at; norm.data is null where there is none.
void rotate(const Activations& x, const HeadTurn& turn, const StoredRows& norm, cudaStream_t queue);

/// Keys and values as [kv head, token, dimension], all keys first.
void append(const Activations& k, const Activations& v, std::int64_t first, const KeysAndValues& cache,
            cudaStream_t queue);
void attend(const Activations& q, const KeysAndValues& cache, std::int64_t first, const Activations& out,
            cudaStream_t queue);
inline constexpr std::int64_t longest_head = 256;  ///< that attend takes

void gate(float* gate, const float* up, std::int64_t n, cudaStream_t queue);
void add(const float* y, float* stream, std::int64_t n, cudaStream_t queue);
void gather(const Activations& x, const std::int32_t* tokens, const Activations& out, cudaStream_t queue);
void add_scaled(const Activations& y, const std::int32_t* tokens, const float* weights, float* stream,
                cudaStream_t queue);

/// Of each token's logits of some ids from `first_id` on: the largest, the sum of exp(logit - largest), and the wanted
/// id's, NaN where it is not among them; [3, tokens].
void sum_logits(const Activations& logits, std::int64_t first_id, const std::int32_t* wanted, float* out,
                cudaStream_t queue);

}  // namespace geom::cuda
