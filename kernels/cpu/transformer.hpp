// The CPU body of Transformer: panels of 16 tokens (lanes.hpp), products in tiles of a fixed number of a weight's rows,
// attention by head and three panels of queries.
//
// Keys lie as [kv head, token, dimension], values as [kv head, block of key_block tokens, dimension, token of the
// block]: row-major left operands of the two products of attention.
#pragma once

#include <string>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/cpu/lane_product.hpp"
#include "kernels/transformer.hpp"
#include "kernels/workers.hpp"

namespace geom::cpu {

class CpuTransformer final : public Transformer {
public:
    /// With instructions of `isa`, which all ranks of a job must answer alike for results to be the same bits.
    CpuTransformer(Workers& workers, Isa isa);

    void use(ForwardProducts products) override;
    std::int64_t activation_bytes(std::int64_t tokens, std::int64_t width) const override;
    std::int64_t cache_bytes(const KeysAndValues& sizes) const override;
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

    /// So many floats of a thread's own, or, of worker size() and the next, of all; kept between calls.
    float* scratch_of(int worker, std::int64_t floats);
    float* shared(std::int64_t floats) { return scratch_of(workers_.size(), floats); }
    float* terms_of(const Activations& x, DType weights);

    Workers& workers_;
    LaneProducts products_;
    std::vector<Buffer> scratch_;
};

}  // namespace geom::cpu
