// Products of the W_Q and W_K blocks of heads, of which one number a pair of operators is kept: what gram is written
// with. Blocks are packed once into a format of the backend's choosing and multiplied many times.
//
// ⟨W_K^T W_Q, W_K'^T W_Q'⟩_F = sum_ab (K K'^T)_ab (Q Q'^T)_ab
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/matrix_ref.hpp"

namespace geom {

/// How a backend keeps one head's hd x D block of W_Q or W_K for products: all ranks of a job use the same.
struct HeadBlockFormat {
    std::int64_t head_dim = 0;
    std::int64_t hidden = 0;
    DType dtype = DType::bf16;  ///< of the elements as kept: bf16, f32 or f64
    std::int64_t bytes = 0;     ///< of one block
    std::string path;  ///< which product is used, as written to the result: "amx-bf16", "sgemm", "cublas-bf16", ...
};

/// The blocks of one key/value group that a rank holds: k[layer], q[head][layer], all in one HeadBlockFormat.
struct KvGroupBlocks {
    std::int64_t layers = 0;
    std::int64_t heads = 0;        ///< query heads of the group that are here
    const std::byte* k = nullptr;  ///< block of layer l at k + l * bytes
    const std::byte* q = nullptr;  ///< block of head i, layer l at q + (i * layers + l) * bytes

    /// MatrixRef::exponent of each block, in the host's memory, in the order of the blocks; null where all are 0.
    const std::int32_t* k_exponents = nullptr;
    const std::int32_t* q_exponents = nullptr;

    /// 2^this is what the operator of a head and a layer was divided by.
    std::int32_t exponent(std::int64_t head, std::int64_t layer) const noexcept {
        return (k_exponents != nullptr ? k_exponents[layer] : 0) +
               (q_exponents != nullptr ? q_exponents[head * layers + layer] : 0);
    }
};

/// Where the heads of `left` begin among those of `right`, both in one format, when they are of one group; -1 when they
/// are of different groups. Throws Error(internal) for heads of one group that do not lie in a row.
std::int64_t place_in(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format);

/// Public verbs check what they are given and throw Error(internal) where it does not fit; bodies may rely on it.
class HeadProducts {
public:
    virtual ~HeadProducts() = default;

    /// The format for weights of `dtype` (the widest of all W_Q and W_K): bf16 stays bf16, f16 and f32 become f32, f64
    /// stays f64. Throws for other types and for sizes that are not positive.
    HeadBlockFormat format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const;

    /// Packs blocks.size() blocks of hd x D stored elements into out[i] (format.bytes each, backend's memory), each
    /// times 2^-exponent. Exact, but for elements that thereby fall below the format's normal numbers. With `columns`,
    /// 1 x D stored elements, folded: every element times its column's, rounded to the format, f32 or f64, once.
    void pack(std::span<const MatrixRef> blocks, const HeadBlockFormat& format, std::span<std::byte* const> out,
              const MatrixRef& columns = {});

    /// out[i, l, l'] = sum_ab (K_l K_l'^T)_ab (Q_il Q_il'^T)_ab for all l, l' (symmetric), f64, host memory, heads x
    /// layers x layers. K's products are computed once for all heads of the group. Products accumulate in the format's
    /// precision (f32 for bf16), the sum over a, b in f64, in an order that depends on the shape alone. Of the blocks
    /// as they were before pack scaled them: the exponents of the group are put back, exactly.
    void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out);

    /// Every query head i of the left group against every head j of the right one: out[i, j, l, l'] =
    /// sum_ab (K_l K'_l'^T)_ab (Q_il Q'_jl'^T)_ab for all l, l', f64, host memory, left heads x right heads x layers x
    /// layers. K's products are computed once for all pairs of heads. Where left is a run of heads of the right group
    /// itself (place_in), only pairs of a head with itself and with those after it are computed; the others'
    /// numbers mean nothing. Accuracy as tile_dots; of a head with itself the same bits.
    void cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format,
                    std::span<double> out);

    /// Gives back the scratch memory that tile_dots and cross_dots may keep from one call to the next.
    void end_products() { do_end_products(); }

    /// Bytes of the backend's memory that pack, and tile_dots for a group of so many heads, or cross_dots for so many
    /// left ones, take, for the plan.
    std::int64_t scratch_bytes(const HeadBlockFormat& format, std::int64_t layers, std::int64_t heads) const;
    std::int64_t cross_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers, std::int64_t left_heads,
                                     std::int64_t right_heads) const;

private:
    virtual HeadBlockFormat do_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const = 0;
    virtual void do_pack(std::span<const MatrixRef> blocks, const HeadBlockFormat& format,
                         std::span<std::byte* const> out, const MatrixRef& columns) = 0;
    virtual void do_tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) = 0;
    virtual void do_cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format,
                               std::span<double> out) = 0;
    virtual void do_end_products() {}
    virtual std::int64_t do_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                          std::int64_t heads) const = 0;
    virtual std::int64_t do_cross_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                                std::int64_t left_heads, std::int64_t right_heads) const = 0;
};

}  // namespace geom
