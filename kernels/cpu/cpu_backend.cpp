// The backend of ranks without a GPU: host memory, this rank's threads, OpenBLAS and AMX tiles.
#include <cblas.h>

#include "kernels/backend.hpp"
#include "kernels/cpu/dense_batch.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/tile_dots.hpp"
#include "kernels/workers.hpp"

namespace geom {

namespace {

class CpuBackend final : public Backend {
public:
    CpuBackend(int threads, bool amx) : workers_(threads), dense_(workers_), amx_(amx) {}

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
    DenseBatch& dense() override { return dense_; }
    Buffer allocate(std::int64_t bytes) override { return allocate_host(bytes); }

    HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const override {
        return cpu::head_block_format(dtype, head_dim, hidden, amx_);
    }
    void pack_head_blocks(std::span<const MatrixRef> blocks, const HeadBlockFormat& format,
                          std::span<std::byte* const> out) override {
        cpu::pack_head_blocks(blocks, format, out, workers_);
    }
    void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) override {
        cpu::tile_dots(group, format, out, workers_);
    }
    std::int64_t tile_dots_scratch(const HeadBlockFormat& format) const override {
        return workers_.size() * cpu::tile_dots_scratch(format);
    }

private:
    Workers workers_;
    CpuDenseBatch dense_;
    bool amx_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads, bool amx) { return std::make_unique<CpuBackend>(threads, amx); }

}  // namespace geom
