// The small steps of a forward pass. A block of 256 threads takes a token, or a head of one, where sums go over it;
// else a thread takes a number. All are bound by memory: each reads and writes its operands once (norms read twice, the
// second time from L1 or L2). At 256 tokens of Qwen3-32B a step moves 5 to 50 MB, 2 to 15 us, beside 1.5 ms of products
// of a layer. Sums are of f32, over 256 partial sums in a fixed order: relative error about (width / 256 + 13) eps.
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/transformer_kernels.hpp"

namespace geom::cuda {

namespace {

__device__ float stored_f32(const StoredRows& from, std::int64_t i) {
    switch (from.dtype) {
        case DType::bf16:
            return widened<float>(reinterpret_cast<const Bf16*>(from.data)[i]);
        case DType::f16:
            return widened<float>(reinterpret_cast<const __half*>(from.data)[i]);
        case DType::f32:
            return reinterpret_cast<const float*>(from.data)[i];
        default:
            return widened<float>(reinterpret_cast<const double*>(from.data)[i]);
    }
}

__device__ std::int64_t own_number() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

__device__ float inverse_root(float squares, std::int64_t n, float eps) {
    return 1.0F / sqrtf(squares / static_cast<float>(n) + eps);
}

__global__ void embed_kernel(EmbeddingRows from, const std::int32_t* ids, float* stream) {
    const std::int64_t row = ids[blockIdx.x] - from.first_row;
    if (row < 0 || row >= from.count) return;
    for (std::int64_t i = threadIdx.x; i < from.width; i += blockDim.x)
        stream[blockIdx.x * from.width + i] = stored_f32(from.rows, row * from.width + i);
}

__global__ void rms_norm_kernel(const float* stream, StoredRows weight, float eps, Activations out) {
    const float* row = stream + blockIdx.x * out.width;
    float squares = 0.0F;
    for (std::int64_t i = threadIdx.x; i < out.width; i += blockDim.x) squares = fmaf(row[i], row[i], squares);
    const float factor = inverse_root(block_sum(squares), out.width, eps);
    for (std::int64_t i = threadIdx.x; i < out.width; i += blockDim.x)
        out.data[blockIdx.x * out.width + i] = stored_f32(weight, i) * (row[i] * factor);
}

__global__ void to_f32_kernel(StoredRows from, std::int64_t n, float* to) {
    const std::int64_t i = own_number();
    if (i < n) to[i] = stored_f32(from, i);
}

__global__ void split_kernel(const float* x, std::int64_t n, std::uint16_t* terms) {
    const std::int64_t i = own_number();
    if (i >= n) return;
    float rest = x[i];
    for (int term = 0; term < 3; ++term) {
        const std::uint32_t upper = __float_as_uint(rest) >> 16;
        terms[term * n + i] = static_cast<std::uint16_t>(upper);
        rest -= __uint_as_float(upper << 16);
    }
}

__global__ void add_bias_kernel(StoredRows bias, Activations out) {
    const std::int64_t i = own_number();
    if (i < out.tokens * out.width) out.data[i] += stored_f32(bias, i % out.width);
}

// A block takes head blockIdx.x of token blockIdx.y.
__global__ void rotate_kernel(Activations x, HeadTurn turn, StoredRows norm) {
    float* head = x.data + blockIdx.y * x.width + blockIdx.x * turn.head_dim;
    const std::int64_t half = turn.head_dim / 2, position = turn.first + blockIdx.y;
    float factor = 1.0F;
    if (norm.data != nullptr) {
        float squares = 0.0F;
        for (std::int64_t i = threadIdx.x; i < turn.head_dim; i += blockDim.x)
            squares = fmaf(head[i], head[i], squares);
        factor = inverse_root(block_sum(squares), turn.head_dim, static_cast<float>(turn.eps));
    }
    for (std::int64_t i = threadIdx.x; i < half; i += blockDim.x) {
        float a = head[i], b = head[half + i];
        if (norm.data != nullptr) {
            a = stored_f32(norm, i) * (a * factor);
            b = stored_f32(norm, half + i) * (b * factor);
        }
        const float c = turn.table[i * turn.positions + position],
                    s = turn.table[(half + i) * turn.positions + position];
        head[i] = a * c - b * s;
        head[half + i] = b * c + a * s;
    }
}

// A block takes a token: keys where blockIdx.y is 0, else values.
__global__ void append_kernel(Activations k, Activations v, std::int64_t first, KeysAndValues cache) {
    const Activations from = blockIdx.y == 0 ? k : v;
    const std::int64_t all = cache.kv_heads * cache.capacity * cache.head_dim;
    float* to = cache.data + blockIdx.y * all + (first + blockIdx.x) * cache.head_dim;
    for (std::int64_t i = threadIdx.x; i < from.width; i += blockDim.x) {
        to[i / cache.head_dim * cache.capacity * cache.head_dim + i % cache.head_dim] =
            from.data[blockIdx.x * from.width + i];
    }
}

__global__ void gate_kernel(float* gate, const float* up, std::int64_t n) {
    const std::int64_t i = own_number();
    if (i < n) gate[i] = gate[i] / (1.0F + expf(-gate[i])) * up[i];
}

__global__ void add_kernel(const float* y, float* stream, std::int64_t n) {
    const std::int64_t i = own_number();
    if (i < n) stream[i] += y[i];
}

__global__ void gather_kernel(Activations x, const std::int32_t* tokens, Activations out) {
    const std::int64_t i = own_number();
    if (i < out.tokens * out.width) out.data[i] = x.data[tokens[i / out.width] * out.width + i % out.width];
}

__global__ void add_scaled_kernel(Activations y, const std::int32_t* tokens, const float* weights, float* stream) {
    const std::int64_t i = own_number();
    if (i >= y.tokens * y.width) return;
    const std::int64_t token = i / y.width;
    stream[tokens[token] * y.width + i % y.width] += weights[token] * y.data[i];
}

__global__ void sum_logits_kernel(Activations logits, std::int64_t first_id, const std::int32_t* wanted, float* out) {
    const float* row = logits.data + blockIdx.x * logits.width;
    float largest = row[0];
    for (std::int64_t i = threadIdx.x; i < logits.width; i += blockDim.x) largest = larger(row[i], largest);
    largest = block_max(largest);
    float sum = 0.0F;
    for (std::int64_t i = threadIdx.x; i < logits.width; i += blockDim.x) sum += expf(row[i] - largest);
    sum = block_sum(sum);
    if (threadIdx.x > 0) return;
    const std::int64_t place = wanted[blockIdx.x] - first_id;
    out[blockIdx.x] = largest;
    out[logits.tokens + blockIdx.x] = sum;
    out[2 * logits.tokens + blockIdx.x] =
        place >= 0 && place < logits.width ? row[place] : __uint_as_float(0x7fc00000U);
}

LaunchShape of_numbers(std::int64_t n) {
    return {dim3(static_cast<unsigned>((n + block_threads - 1) / block_threads)), block_threads};
}

LaunchShape of_tokens(std::int64_t tokens) { return {dim3(static_cast<unsigned>(tokens)), block_threads}; }

}  // namespace

void embed(const EmbeddingRows& from, const std::int32_t* ids, std::int64_t tokens, float* stream, cudaStream_t queue) {
    launch("embed", embed_kernel, of_tokens(tokens), queue, from, ids, stream);
}

void rms_norm(const float* stream, const StoredRows& weight, double eps, const Activations& out, cudaStream_t queue) {
    launch("rms_norm", rms_norm_kernel, of_tokens(out.tokens), queue, stream, weight, static_cast<float>(eps), out);
}

void to_f32(const StoredRows& from, std::int64_t n, float* to, cudaStream_t queue) {
    launch("to_f32", to_f32_kernel, of_numbers(n), queue, from, n, to);
}

void split(const float* x, std::int64_t n, std::uint16_t* terms, cudaStream_t queue) {
    launch("split", split_kernel, of_numbers(n), queue, x, n, terms);
}

void add_bias(const StoredRows& bias, const Activations& out, cudaStream_t queue) {
    launch("add_bias", add_bias_kernel, of_numbers(out.tokens * out.width), queue, bias, out);
}

void rotate(const Activations& x, const HeadTurn& turn, const StoredRows& norm, cudaStream_t queue) {
    const dim3 grid(static_cast<unsigned>(x.width / turn.head_dim), static_cast<unsigned>(x.tokens));
    launch("rotate", rotate_kernel, {grid, block_threads}, queue, x, turn, norm);
}

void append(const Activations& k, const Activations& v, std::int64_t first, const KeysAndValues& cache,
            cudaStream_t queue) {
    launch("append", append_kernel, {dim3(static_cast<unsigned>(k.tokens), 2), block_threads}, queue, k, v, first,
           cache);
}

void gate(float* gate, const float* up, std::int64_t n, cudaStream_t queue) {
    launch("gate", gate_kernel, of_numbers(n), queue, gate, up, n);
}

void add(const float* y, float* stream, std::int64_t n, cudaStream_t queue) {
    launch("add", add_kernel, of_numbers(n), queue, y, stream, n);
}

void gather(const Activations& x, const std::int32_t* tokens, const Activations& out, cudaStream_t queue) {
    launch("gather", gather_kernel, of_numbers(out.tokens * out.width), queue, x, tokens, out);
}

void add_scaled(const Activations& y, const std::int32_t* tokens, const float* weights, float* stream,
                cudaStream_t queue) {
    launch("add_scaled", add_scaled_kernel, of_numbers(y.tokens * y.width), queue, y, tokens, weights, stream);
}

void sum_logits(const Activations& logits, std::int64_t first_id, const std::int32_t* wanted, float* out,
                cudaStream_t queue) {
    launch("sum_logits", sum_logits_kernel, of_tokens(logits.tokens), queue, logits, first_id, wanted, out);
}

}  // namespace geom::cuda
