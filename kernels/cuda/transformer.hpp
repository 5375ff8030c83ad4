// The CUDA body of Transformer: cuBLAS and the kernels of transformer_kernels.cu and attention.cu. Activations are
// row-major [tokens, width]. bf16 weights are multiplied as stored: an activation is split in three bf16 terms, whose
// sum it is, and products accumulate in f32, over at most 1024 columns at a time (tensor cores cut digits off longer
// sums). Other weights, and bf16 ones where f32 products are asked for, are widened to f32, some rows at a time, and
// multiplied in f32, never TF32.
#pragma once

#include "kernels/cuda/device.hpp"
#include "kernels/transformer.hpp"

namespace geom::cuda {

class CudaTransformer final : public Transformer {
public:
    explicit CudaTransformer(Device& device) : device_(device) {}

    void use(ForwardProducts products) override { products_ = products; }
    std::int64_t activation_bytes(std::int64_t tokens, std::int64_t width) const override { return 4 * tokens * width; }
    std::int64_t cache_bytes(const KeysAndValues& sizes) const override {
        return 8 * sizes.kv_heads * sizes.capacity * sizes.head_dim;
    }
    std::int64_t scratch_bytes(std::int64_t tokens, std::int64_t widest, std::int64_t head_dim) const override;

private:
    std::string do_path(DType weights) const override;
    void do_embed(const MatrixRef& rows, std::int64_t first_row, std::span<const std::int32_t> ids,
                  float* stream) override;
    void do_rms_norm(const float* stream, const MatrixRef& weight, double eps, const Activations& out) override;
    void do_product(const Activations& x, const MatrixRef& w, const MatrixRef* bias, const Activations& out) override;
    void do_rotate(const Activations& x, const HeadTurn& turn) override;
    void do_append(const Activations& k, const Activations& v, std::int64_t first, const KeysAndValues& cache) override;
    void do_attend(const Activations& q, const KeysAndValues& cache, std::int64_t first,
                   const Activations& out) override;
    void do_gate(const Activations& gate, const Activations& up) override;
    void do_add(const Activations& y, float* stream) override;
    void do_route(const Activations& x, const MatrixRef& router, const Routing& routing,
                  std::span<std::int32_t> experts, std::span<float> weights) override;
    void do_gather(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out) override;
    void do_add_scaled(const Activations& y, std::span<const std::int32_t> tokens, std::span<const float> weights,
                       float* stream) override;
    void do_add_logits(const Activations& x, const MatrixRef& rows, std::int64_t first_row,
                       std::span<const std::int32_t> wanted, const LogSumExp& kept) override;

    bool splits(DType weights) const { return weights == DType::bf16 && products_ == ForwardProducts::fastest; }
    void multiply(const Activations& x, const MatrixRef& w, float* out);
    void multiply_split(const Activations& x, const MatrixRef& w, float* out);
    void multiply_f32(const Activations& x, const MatrixRef& w, float* out);

    /// Host numbers in the device's memory, until the next call for the same place.
    template <class T>
    const T* sent(std::span<const T> numbers, Buffer& host, Buffer& device);
    float* at_least(Buffer& memory, std::int64_t bytes) const;

    Device& device_;
    ForwardProducts products_ = ForwardProducts::fastest;
    Buffer products_memory_, logits_;                  // what is split or widened; logits and what is left of them
    Buffer tokens_, weights_;                          // of a mixture's expert, ids
    Buffer host_tokens_, host_weights_, host_logits_;  // pinned
};

}  // namespace geom::cuda
