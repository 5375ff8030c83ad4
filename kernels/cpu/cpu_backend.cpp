// The backend of ranks without a GPU: host memory, this rank's threads, its vector and tile instructions, OpenBLAS.
#include <cblas.h>

#include <cstring>

#include "kernels/backend.hpp"
#include "kernels/cpu/dense_batch.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/library_gemm.hpp"
#include "kernels/cpu/matrices.hpp"
#include "kernels/cpu/tile_dots.hpp"
#include "kernels/cpu/transformer.hpp"
#include "kernels/workers.hpp"

namespace geom {

namespace {

/// Where the host writes is where verbs read, and they are over when they return.
class CpuInputBuffer final : public InputBuffer {
public:
    explicit CpuInputBuffer(std::int64_t bytes) : buffer_(allocate_host(bytes)) {}
    std::byte* host() const noexcept override { return buffer_.data(); }
    const std::byte* data() const noexcept override { return buffer_.data(); }
    void wait_sent() override {}
    void send(std::int64_t /*bytes*/) override {}
    void receive() override {}
    void release() override {}

private:
    Buffer buffer_;
};

class CpuHeadProducts final : public HeadProducts {
public:
    CpuHeadProducts(Workers& workers, Isa isa) : workers_(workers), isa_(isa) {}

private:
    HeadBlockFormat do_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const override {
        return cpu::head_block_format(dtype, head_dim, hidden, isa_);
    }
    void do_pack(std::span<const MatrixRef> blocks, const HeadBlockFormat& format, std::span<std::byte* const> out,
                 const MatrixRef& columns) override {
        cpu::pack_head_blocks({blocks, columns}, format, out, workers_);
    }
    void do_tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) override {
        cpu::tile_dots(group, format, out, workers_);
    }
    void do_cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format,
                       std::span<double> out) override {
        cpu::cross_dots(left, right, place_in(left, right, format), format, out, workers_);
    }
    std::int64_t do_scratch_bytes(const HeadBlockFormat& format, std::int64_t /*layers*/,
                                  std::int64_t /*heads*/) const override {
        return workers_.size() * cpu::tile_dots_scratch(format);
    }
    std::int64_t do_cross_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers, std::int64_t left_heads,
                                        std::int64_t /*right_heads*/) const override {
        return do_scratch_bytes(format, layers, left_heads);
    }

    Workers& workers_;
    Isa isa_;
};

class CpuBackend final : public Backend {
public:
    CpuBackend(int threads, Isa isa)
        : workers_(threads),
          head_products_(workers_, isa),
          dense_(workers_),
          matrices_(workers_, isa),
          transformer_(workers_, isa),
          isa_(isa) {}

    std::string name() const override { return "cpu"; }
    std::string device() const override {
        const std::string processor = processor_name();
        return processor.empty() ? "CPU" : processor;
    }
    std::string library() const override {
        const std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
        return config.substr(0, config.find(' ', config.find(' ') + 1));
    }
    Workers& workers() override { return workers_; }
    Queue& queue() override { return host_queue(); }
    DenseBatch& dense() override { return dense_; }
    Matrices& matrices() override { return matrices_; }
    std::int64_t progress() override { return workers_.progress(); }
    Transformer& transformer() override { return transformer_; }
    Buffer allocate(std::int64_t bytes) override { return allocate_host(bytes); }
    std::unique_ptr<InputBuffer> input_buffer(std::int64_t bytes) override {
        return std::make_unique<CpuInputBuffer>(bytes);
    }

    HeadProducts& head_products() override { return head_products_; }

    Yardstick large_product(const GemmShape& shape) override {
        const Yardstick product = isa_ >= Isa::avx512_bf16 ? cpu::onednn_gemm(shape, workers_.size()) : Yardstick{};
        return product.run ? product : cpu::openblas_gemm(shape, workers_.size());
    }
    Yardstick large_copy(std::int64_t bytes) override;

private:
    Workers workers_;
    CpuHeadProducts head_products_;
    cpu::CpuDenseBatch dense_;
    cpu::CpuMatrices matrices_;
    cpu::CpuTransformer transformer_;
    Isa isa_;
};

// A slice a thread.
Yardstick CpuBackend::large_copy(std::int64_t bytes) {
    const auto from = std::make_shared<Buffer>(allocate(bytes)), to = std::make_shared<Buffer>(allocate(bytes));
    std::memset(from->data(), 1, static_cast<std::size_t>(bytes));
    return {"memcpy", [this, from, to, bytes] {
                const std::int64_t slices = workers_.size();
                workers_.for_each(slices, [&](std::int64_t i, int) {
                    const std::int64_t begin = bytes * i / slices, end = bytes * (i + 1) / slices;
                    std::memcpy(to->data() + begin, from->data() + begin, static_cast<std::size_t>(end - begin));
                });
            }};
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads, Isa isa) { return std::make_unique<CpuBackend>(threads, isa); }

}  // namespace geom
