// The steps of a decoder's forward pass for a chunk of tokens: what model/ is written with. Everything is f32 but the
// weights, which come as stored. The stream is row-major [tokens, hidden]; what lies between two verbs (Activations) is
// in an order of the backend's own. The bits of a result depend on the operands and on the chunk alone, never on
// threads or ranks. All memory is the backend's unless said otherwise. Public verbs throw Error(internal) for operands
// that do not fit one another; bodies may rely on it.
//
//   stream -> rms_norm -> product (q, k, v) -> rotate (q, k) -> append (k, v) -> attend -> product (o) -> add -> stream
//   stream -> rms_norm -> product (gate, up) -> gate -> product (down) -> add -> stream
//   stream -> rms_norm -> route -> for every expert: gather -> product ... -> add, scaled -> stream
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/forward_shape.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom {

/// Chunks begin at multiples of so many tokens; tables of rotations have a multiple of them.
inline constexpr std::int64_t token_step = 16;

/// `width` numbers of each of some tokens. Has Transformer::activation_bytes(tokens, width).
struct Activations {
    float* data = nullptr;
    std::int64_t tokens = 0;
    std::int64_t width = 0;
};

/// Keys and values of one layer for the tokens so far, of at most `capacity`. Has Transformer::cache_bytes.
struct KeysAndValues {
    float* data = nullptr;
    std::int64_t capacity = 0;
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 0;
};

/// What turns the heads of a layer. The table has cosines, then sines, each [head_dim / 2, positions], f32.
struct HeadTurn {
    const float* table = nullptr;
    std::int64_t positions = 0;
    std::int64_t first = 0;  ///< position of the chunk's first token
    std::int64_t head_dim = 0;
    const MatrixRef* norm = nullptr;  ///< q_norm or k_norm, applied to each head before it is turned; null: none
    double eps = 0;                   ///< of that norm
};

/// How a mixture's router chooses.
struct Routing {
    std::int64_t per_token = 0;
    bool renormalise = false;
};

/// What cross entropy keeps of each token over strips of lm_head: host memory, f64.
struct LogSumExp {
    std::span<double> largest;  ///< logit so far; starts at -infinity
    std::span<double> sum;      ///< of exp(logit - largest); starts at 0
    std::span<double> wanted;   ///< logit of the wanted id, once its strip has been seen
};

/// Which products are wanted of bf16 weights: the fastest whose error is far below that of f32 sums, or f32 ones.
enum class ForwardProducts : std::uint8_t { fastest, f32 };

class Transformer {
public:
    virtual ~Transformer() = default;

    /// What multiplies weights of this type: "avx512-f32", "amx-bf16x3", ...
    std::string path(DType weights) const;
    /// All ranks of a job say the same.
    virtual void use(ForwardProducts products) = 0;

    virtual std::int64_t activation_bytes(std::int64_t tokens, std::int64_t width) const = 0;
    virtual std::int64_t cache_bytes(const KeysAndValues& sizes) const = 0;
    /// That verbs keep between calls, for chunks of so many tokens whose widest activations are `widest`.
    virtual std::int64_t scratch_bytes(std::int64_t tokens, std::int64_t widest, std::int64_t head_dim) const = 0;

    /// stream[i] = rows[ids[i] - first_row] for the ids that lie among these rows of embed_tokens; other tokens stay.
    /// `ids` is host memory.
    void embed(const MatrixRef& rows, std::int64_t first_row, std::span<const std::int32_t> ids, float* stream);

    /// out = x / sqrt(mean(x^2) + eps) * weight, a token at a time.
    void rms_norm(const float* stream, const MatrixRef& weight, double eps, const Activations& out);

    /// out = w x (+ bias), w [out.width, x.width], bias [1, out.width] or null.
    void product(const Activations& x, const MatrixRef& w, const MatrixRef* bias, const Activations& out);

    /// Normalises and turns every head of x.
    void rotate(const Activations& x, const HeadTurn& turn);

    /// Keys and values of the tokens from `first` on, [kv_heads * head_dim] each.
    void append(const Activations& k, const Activations& v, std::int64_t first, const KeysAndValues& cache);

    /// out = softmax(q k^T / sqrt(head_dim)) v, causal: token first + i sees tokens 0 to first + i of the cache. Query
    /// heads share key heads in groups. Over blocks of keys of a fixed size, one after the other.
    void attend(const Activations& q, const KeysAndValues& cache, std::int64_t first, const Activations& out);

    /// gate = silu(gate) * up.
    void gate(const Activations& gate, const Activations& up);

    /// stream += y.
    void add(const Activations& y, float* stream);

    /// experts[i, :] = the per_token largest of softmax(router x_i), descending (ties: the lower number first), and
    /// weights[i, :] their shares. Host memory, both [tokens, per_token].
    void route(const Activations& x, const MatrixRef& router, const Routing& routing, std::span<std::int32_t> experts,
               std::span<float> weights);

    /// out[i] = x[tokens[i]]; out has as many tokens. `tokens` is host memory.
    void gather(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out);

    /// stream[tokens[i]] += weights[i] y[i]; no token twice. Both spans are host memory.
    void add_scaled(const Activations& y, std::span<const std::int32_t> tokens, std::span<const float> weights,
                    float* stream);

    /// Adds the logits rows x of some rows of lm_head, from first_row on, to what is kept of every token; wanted[i] is
    /// the id whose logit is wanted of token i (-1: none). Spans are host memory, x.tokens long.
    void add_logits(const Activations& x, const MatrixRef& rows, std::int64_t first_row,
                    std::span<const std::int32_t> wanted, const LogSumExp& kept);

private:
    virtual std::string do_path(DType weights) const = 0;
    virtual void do_embed(const MatrixRef& rows, std::int64_t first_row, std::span<const std::int32_t> ids,
                          float* stream) = 0;
    virtual void do_rms_norm(const float* stream, const MatrixRef& weight, double eps, const Activations& out) = 0;
    virtual void do_product(const Activations& x, const MatrixRef& w, const MatrixRef* bias,
                            const Activations& out) = 0;
    virtual void do_rotate(const Activations& x, const HeadTurn& turn) = 0;
    virtual void do_append(const Activations& k, const Activations& v, std::int64_t first,
                           const KeysAndValues& cache) = 0;
    virtual void do_attend(const Activations& q, const KeysAndValues& cache, std::int64_t first,
                           const Activations& out) = 0;
    virtual void do_gate(const Activations& gate, const Activations& up) = 0;
    virtual void do_add(const Activations& y, float* stream) = 0;
    virtual void do_route(const Activations& x, const MatrixRef& router, const Routing& routing,
                          std::span<std::int32_t> experts, std::span<float> weights) = 0;
    virtual void do_gather(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out) = 0;
    virtual void do_add_scaled(const Activations& y, std::span<const std::int32_t> tokens,
                               std::span<const float> weights, float* stream) = 0;
    virtual void do_add_logits(const Activations& x, const MatrixRef& rows, std::int64_t first_row,
                               std::span<const std::int32_t> wanted, const LogSumExp& kept) = 0;
};

}  // namespace geom
