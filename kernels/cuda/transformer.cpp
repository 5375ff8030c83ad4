#include "kernels/cuda/transformer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.hpp"
#include "kernels/choose_experts.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"
#include "kernels/cuda/transformer_kernels.hpp"

namespace geom::cuda {

namespace {

constexpr std::int64_t columns_at_once = 1024;                  // of sums in tensor cores
constexpr std::int64_t widened_bytes = std::int64_t{64} << 20;  // of weights in f32, at least a row
constexpr std::int64_t ids_at_once = 4096;                      // logits that are in memory
constexpr std::int64_t terms = 3;

StoredRows stored(const MatrixRef& w) { return {w.data, w.dtype}; }

MatrixRef rows_of(const MatrixRef& w, std::int64_t begin, std::int64_t count) {
    const std::int64_t rows = std::min(count, w.rows - begin);
    return {w.data + begin * w.cols * size_of(w.dtype), w.dtype, rows, w.cols};
}

/// out[tokens, rows] (+)= x[tokens, cols] w[rows, cols]^T, all row-major: to cuBLAS, which is column-major, out^T = w
/// x^T.
struct Gemm {
    const void* w;
    const void* x;
    cudaDataType type;
    cublasComputeType_t compute;
    std::int64_t rows, tokens, cols, stride;  ///< columns that are summed, and numbers from row to row of w and x
    float* out;
    std::int64_t out_stride;
    bool first;
};

void multiply(const Device& device, const Gemm& g) {
    const float one = 1.0F, kept = g.first ? 0.0F : 1.0F;
    check_cublas(cublasGemmEx(device.cublas(), CUBLAS_OP_T, CUBLAS_OP_N, narrow(g.rows), narrow(g.tokens),
                              narrow(g.cols), &one, g.w, g.type, narrow(g.stride), g.x, g.type, narrow(g.stride), &kept,
                              g.out, CUDA_R_32F, narrow(g.out_stride), g.compute, CUBLAS_GEMM_DEFAULT),
                 "cublasGemmEx");
}

std::int64_t widened_rows(std::int64_t cols) { return std::max<std::int64_t>(1, widened_bytes / (4 * cols)); }

}  // namespace

std::string CudaTransformer::do_path(DType weights) const { return splits(weights) ? "cublas-bf16x3" : "cublas-f32"; }

std::int64_t CudaTransformer::scratch_bytes(std::int64_t tokens, std::int64_t widest, std::int64_t /*head_dim*/) const {
    const std::int64_t products = std::max({2 * terms * tokens * widest, widened_bytes, 4 * widest});
    return products + 4 * tokens * (ids_at_once + terms) + 8 * tokens;
}

float* CudaTransformer::at_least(Buffer& memory, std::int64_t bytes) const {
    if (memory.size() < bytes) {
        memory = Buffer();
        memory = device_.allocate(bytes);
    }
    return memory.as<float>();
}

// What was sent before has been read when this returns: the host's copy is written anew.
template <class T>
const T* CudaTransformer::sent(std::span<const T> numbers, Buffer& host, Buffer& device) {
    const auto bytes = static_cast<std::int64_t>(numbers.size_bytes());
    device_.wait();
    if (host.size() < bytes) host = device_.allocate_pinned(bytes);
    at_least(device, bytes);
    std::memcpy(host.data(), numbers.data(), numbers.size_bytes());
    DeviceQueue(device_).copy(device.data(), host.data(), bytes);
    return device.as<T>();
}

void CudaTransformer::do_embed(const MatrixRef& rows, std::int64_t first_row, std::span<const std::int32_t> ids,
                               float* stream) {
    if (ids.empty()) return;
    device_.use();
    const std::int32_t* on_device = sent(ids, host_tokens_, tokens_);
    cuda::embed({stored(rows), first_row, rows.rows, rows.cols}, on_device, std::ssize(ids), stream, device_.stream());
}

void CudaTransformer::do_rms_norm(const float* stream, const MatrixRef& weight, double eps, const Activations& out) {
    device_.use();
    cuda::rms_norm(stream, stored(weight), eps, out, device_.stream());
}

void CudaTransformer::multiply(const Activations& x, const MatrixRef& w, float* out) {
    splits(w.dtype) ? multiply_split(x, w, out) : multiply_f32(x, w, out);
}

// The small terms first.
void CudaTransformer::multiply_split(const Activations& x, const MatrixRef& w, float* out) {
    const std::int64_t n = x.tokens * x.width;
    auto* split_x = reinterpret_cast<std::uint16_t*>(at_least(products_memory_, 2 * terms * n));
    cuda::split(x.data, n, split_x, device_.stream());
    const auto* weights = reinterpret_cast<const std::uint16_t*>(w.data);
    for (std::int64_t term = terms - 1; term >= 0; --term) {
        for (std::int64_t k = 0; k < w.cols; k += columns_at_once) {
            cuda::multiply(device_,
                           {weights + k, split_x + term * n + k, CUDA_R_16BF, CUBLAS_COMPUTE_32F, w.rows, x.tokens,
                            std::min(columns_at_once, w.cols - k), w.cols, out, w.rows, term == terms - 1 && k == 0});
        }
    }
}

void CudaTransformer::multiply_f32(const Activations& x, const MatrixRef& w, float* out) {
    for (std::int64_t row = 0; row < w.rows; row += widened_rows(w.cols)) {
        const MatrixRef some = rows_of(w, row, widened_rows(w.cols));
        const void* weights = some.data;
        if (w.dtype != DType::f32) {
            float* widened = at_least(products_memory_, std::max(widened_bytes, 4 * w.cols));
            to_f32(stored(some), some.rows * some.cols, widened, device_.stream());
            weights = widened;
        }
        cuda::multiply(device_, {weights, x.data, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC, some.rows, x.tokens, w.cols,
                                 w.cols, out + row, w.rows, true});
    }
}

void CudaTransformer::do_product(const Activations& x, const MatrixRef& w, const MatrixRef* bias,
                                 const Activations& out) {
    device_.use();
    multiply(x, w, out.data);
    if (bias != nullptr) add_bias(stored(*bias), out, device_.stream());
}

void CudaTransformer::do_rotate(const Activations& x, const HeadTurn& turn) {
    device_.use();
    cuda::rotate(x, turn, turn.norm != nullptr ? stored(*turn.norm) : StoredRows{}, device_.stream());
}

void CudaTransformer::do_append(const Activations& k, const Activations& v, std::int64_t first,
                                const KeysAndValues& cache) {
    device_.use();
    cuda::append(k, v, first, cache, device_.stream());
}

void CudaTransformer::do_attend(const Activations& q, const KeysAndValues& cache, std::int64_t first,
                                const Activations& out) {
    if (cache.head_dim > longest_head)
        throw Error(ExitCode::usage, "a GPU has no attention of heads longer than 256; --backend cpu has");
    device_.use();
    cuda::attend(q, cache, first, out, device_.stream());
}

void CudaTransformer::do_gate(const Activations& gate, const Activations& up) {
    device_.use();
    cuda::gate(gate.data, up.data, gate.tokens * gate.width, device_.stream());
}

void CudaTransformer::do_add(const Activations& y, float* stream) {
    device_.use();
    cuda::add(y.data, stream, y.tokens * y.width, device_.stream());
}

void CudaTransformer::do_route(const Activations& x, const MatrixRef& router, const Routing& routing,
                               std::span<std::int32_t> experts, std::span<float> weights) {
    device_.use();
    const std::int64_t bytes = 4 * x.tokens * router.rows;
    float* logits = at_least(logits_, bytes);
    multiply(x, router, logits);
    if (host_logits_.size() < bytes) host_logits_ = device_.allocate_pinned(bytes);
    DeviceQueue(device_).copy(host_logits_.data(), logits_.data(), bytes);
    device_.wait();
    for (std::int64_t token = 0; token < x.tokens; ++token) {
        const auto begin = static_cast<std::size_t>(token * routing.per_token);
        choose_experts({host_logits_.as<float>() + token * router.rows, 1, router.rows}, routing, &experts[begin],
                       &weights[begin]);
    }
}

void CudaTransformer::do_gather(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out) {
    device_.use();
    cuda::gather(x, sent(tokens, host_tokens_, tokens_), out, device_.stream());
}

void CudaTransformer::do_add_scaled(const Activations& y, std::span<const std::int32_t> tokens,
                                    std::span<const float> weights, float* stream) {
    device_.use();
    const std::int32_t* places = sent(tokens, host_tokens_, tokens_);
    cuda::add_scaled(y, places, sent(weights, host_weights_, weights_), stream, device_.stream());
}

// Some ids at a time: their logits, what is left of them, and to the host.
void CudaTransformer::do_add_logits(const Activations& x, const MatrixRef& rows, std::int64_t first_row,
                                    std::span<const std::int32_t> wanted, const LogSumExp& kept) {
    device_.use();
    const std::int32_t* ids = sent(wanted, host_tokens_, tokens_);
    const std::int64_t left_bytes = 4 * terms * x.tokens;
    float* left = at_least(logits_, left_bytes + 4 * x.tokens * ids_at_once);
    if (host_logits_.size() < left_bytes) host_logits_ = device_.allocate_pinned(left_bytes);
    for (std::int64_t row = 0; row < rows.rows; row += ids_at_once) {
        const MatrixRef some = rows_of(rows, row, ids_at_once);
        const Activations logits{left + 3 * x.tokens, x.tokens, some.rows};
        multiply(x, some, logits.data);
        sum_logits(logits, first_row + row, ids, left, device_.stream());
        DeviceQueue(device_).copy(host_logits_.data(), logits_.data(), left_bytes);
        device_.wait();
        const float *largest = host_logits_.as<float>(), *sum = largest + x.tokens, *of_wanted = sum + x.tokens;
        for (std::size_t token = 0; token < wanted.size(); ++token) {
            const double before = kept.largest[token];
            const double most = std::max(before, static_cast<double>(largest[token]));
            kept.largest[token] = most;
            kept.sum[token] = kept.sum[token] * std::exp(before - most) +
                              static_cast<double>(sum[token]) * std::exp(static_cast<double>(largest[token]) - most);
            if (!std::isnan(of_wanted[token])) kept.wanted[token] = static_cast<double>(of_wanted[token]);
        }
    }
}

}  // namespace geom::cuda
