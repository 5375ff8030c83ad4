// Where numbers live and are computed: memory, a queue, threads, and sets of verbs. One body a folder (cpu/, cuda/), a
// naive reference in tests/reference. A verb that writes to host memory returns when it may be read; one that writes to
// the backend's memory may return before, its work then lies in queue(). Public verbs check what they are given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/buffer.hpp"
#include "core/queue.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/dense_batch.hpp"
#include "kernels/head_products.hpp"
#include "kernels/input_buffer.hpp"
#include "kernels/matrices.hpp"
#include "kernels/matrix_ref.hpp"
#include "kernels/transformer.hpp"
#include "kernels/workers.hpp"
#include "kernels/yardstick.hpp"

namespace geom {

class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string name() const = 0;     ///< "cpu" or "cuda"
    virtual std::string device() const = 0;   ///< processor or GPU, as people call it
    virtual std::string library() const = 0;  ///< what computes below it, with its version
    virtual Workers& workers() = 0;           ///< the rank's host threads, for work that is not the device's
    virtual std::int64_t progress() = 0;      ///< grows while its verbs make progress

    virtual Queue& queue() = 0;  ///< in which its verbs' work is ordered
    /// Whether its memory is not the host's.
    bool on_device() { return queue().space() == Space::device; }

    virtual Buffer allocate(std::int64_t bytes) = 0;  ///< 64-byte aligned; throws Error(usage) when memory is short

    /// `bytes` of host memory and the backend's, the same on a processor.
    virtual std::unique_ptr<InputBuffer> input_buffer(std::int64_t bytes) = 0;

    // --- verb sets, in the same memory
    // ---------------------------------------------------------------------------------

    virtual HeadProducts& head_products() = 0;  ///< products of head blocks
    virtual DenseBatch& dense() = 0;            ///< fp64 linear algebra on batches of small matrices
    virtual Matrices& matrices() = 0;           ///< singular values of whole weight matrices
    virtual Transformer& transformer() = 0;     ///< the steps of a forward pass

    // --- benchmarks -------------------------------------------------------------------------------------------------

    virtual Yardstick large_product(const GemmShape& shape) = 0;  ///< bf16 where it is fast, else f32
    virtual Yardstick large_copy(std::int64_t bytes) = 0;         ///< inside the backend's memory
};

/// The CPU backend with `threads` threads, whose products of head blocks use instructions of `isa`: one that this
/// processor has (usable_isa()), and the same on all ranks of a job for results to be the same bits.
std::unique_ptr<Backend> make_cpu_backend(int threads, Isa isa);

}  // namespace geom
