// What a backend can do: the verbs of the domain, on matrices in its memory. One body a folder (cpu/, cuda/), a naive
// reference in tests/reference. A verb that writes to host memory returns when it may be read; one that writes to the
// backend's memory may return before, its work then lies in queue().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/buffer.hpp"
#include "core/dtype.hpp"
#include "core/queue.hpp"
#include "kernels/dense_batch.hpp"
#include "kernels/input_buffer.hpp"
#include "kernels/workers.hpp"
#include "kernels/yardstick.hpp"

namespace geom {

/// A contiguous row-major matrix in the backend's memory.
struct MatrixRef {
    const std::byte* data = nullptr;
    DType dtype = DType::bf16;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
};

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
};

class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string name() const = 0;       ///< "cpu" or "cuda"
    virtual std::string device() const = 0;     ///< processor or GPU, as people call it
    virtual std::string library() const = 0;    ///< what computes below it, with its version
    virtual Workers& workers() = 0;             ///< the rank's host threads, for work that is not the device's
    virtual std::int64_t finished() const = 0;  ///< grows while its verbs make progress

    virtual Queue& queue() = 0;  ///< in which its verbs' work is ordered
    /// Whether its memory is not the host's.
    bool on_device() { return queue().space() == Space::device; }

    virtual Buffer allocate(std::int64_t bytes) = 0;  ///< 64-byte aligned; throws Error(usage) when memory is short

    /// `bytes` of host memory and the backend's, the same on a processor.
    virtual std::unique_ptr<InputBuffer> input_buffer(std::int64_t bytes) = 0;

    // --- gram -------------------------------------------------------------------------------------------------------

    /// The format for weights of `dtype` (the widest of all W_Q and W_K): bf16 stays bf16, f16 and f32 become f32.
    virtual HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const = 0;

    /// Packs blocks.size() blocks of hd x D stored elements into out[i] (format.bytes each). Exact.
    virtual void pack_head_blocks(std::span<const MatrixRef> blocks, const HeadBlockFormat& format,
                                  std::span<std::byte* const> out) = 0;

    /// out[i, l, l'] = sum_ab (K_l K_l'^T)_ab (Q_il Q_il'^T)_ab for all l, l' (symmetric), f64, host memory.
    /// K's products are computed once for all heads of the group. Products accumulate in the format's precision
    /// (f32 for bf16), the sum over a, b in f64, in an order that depends on the shape alone.
    virtual void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) = 0;

    /// Bytes of the backend's memory that tile_dots and pack_head_blocks take for groups of this shape, for the plan.
    virtual std::int64_t tile_dots_scratch(const HeadBlockFormat& format, std::int64_t layers,
                                           std::int64_t heads) const = 0;

    /// Dense linear algebra on batches of small matrices, in the same memory.
    virtual DenseBatch& dense() = 0;

    // --- benchmarks -------------------------------------------------------------------------------------------------

    virtual Yardstick large_product(const GemmShape& shape) = 0;  ///< bf16 where it is fast, else f32
    virtual Yardstick large_copy(std::int64_t bytes) = 0;         ///< inside the backend's memory
};

/// The CPU backend with `threads` threads. `amx`: whether products of bf16 may use AMX tiles, which all ranks of a job
/// must answer alike for results to be the same bits; have_amx_bf16() says what this processor can.
std::unique_ptr<Backend> make_cpu_backend(int threads, bool amx);

}  // namespace geom
