// Memory, reading, and eigenvalues of general matrices on the host's threads.
#include "kernels/cuda/dense_batch.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "kernels/cpu/one_matrix.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"

namespace geom::cuda {

/// Matrices that the threads work on while the GPU goes on. Its own pinned memory: other verbs fetch results meanwhile.
struct CudaDenseBatch::HostEigenvalues {
    Workers& workers;
    std::vector<Buffer> scratch;  ///< of each thread
    Buffer matrices;
    bool pending = false;

    explicit HostEigenvalues(Workers& threads) : workers(threads), scratch(at(threads.size())) {}

    void start(std::int64_t count, std::int64_t n, std::span<double> re, std::span<double> im) {
        const std::int64_t bytes = 8 * cpu::general_scratch(n);
        workers.start(count, [this, n, re, im, bytes](std::int64_t i, int worker) {
            Buffer& own = scratch[at(worker)];
            if (own.size() < bytes) own = allocate_host(bytes);
            cpu::general_eigenvalues_of(matrices.as<double>() + i * n * n, n, n, &re[at(i * n)], &im[at(i * n)],
                                        {own.as<double>()});
        });
        pending = true;
    }
    void abandon() noexcept {
        if (std::exchange(pending, false)) workers.abandon();
    }
};

class CudaDenseBatch::OnThreads final : public PendingResult {
public:
    explicit OnThreads(std::shared_ptr<HostEigenvalues> work) : work_(std::move(work)) {}
    ~OnThreads() override {
        if (begun_) work_->abandon();
    }
    OnThreads(const OnThreads&) = delete;
    OnThreads& operator=(const OnThreads&) = delete;

    void finish() override {
        if (std::exchange(begun_, false) && std::exchange(work_->pending, false)) work_->workers.finish();
    }

private:
    std::shared_ptr<HostEigenvalues> work_;
    bool begun_ = true;  ///< and not finished: what is pending is ours
};

CudaDenseBatch::CudaDenseBatch(Device& device, Workers& workers)
    : device_(device), memory_(device), on_threads_(std::make_shared<HostEigenvalues>(workers)) {}

CudaDenseBatch::~CudaDenseBatch() { on_threads_->abandon(); }

Buffer CudaDenseBatch::allocate(std::int64_t bytes) {
    device_.use();
    return device_.allocate(bytes);
}

Workers& CudaDenseBatch::workers() { return on_threads_->workers; }

std::unique_ptr<PendingResult> CudaDenseBatch::do_general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                                      std::span<double> im) {
    if (on_threads_->pending) {
        throw Error(ExitCode::internal, "general_eigenvalues was called before the last one had finished");
    }
    device_.use();
    const std::int64_t n = matrices.rows, count = matrices.size(), bytes = 8 * count * n * n;
    if (bytes > on_threads_->matrices.size()) {
        on_threads_->matrices = {};
        on_threads_->matrices = device_.allocate_pinned(bytes);
    }
    if (bytes > 0) {
        const auto [packed] = memory_.scratch(std::array{count * n * n});
        const auto [from, to] = memory_.upload(matrices.at, pointers(packed, count, n * n));
        copy_blocks(count, {from, matrices.ld}, n, n, {to, n}, device_.stream());
        check_cuda(cudaMemcpyAsync(on_threads_->matrices.data(), packed, static_cast<std::size_t>(bytes),
                                   cudaMemcpyDeviceToHost, device_.stream()),
                   "cudaMemcpyAsync");
        memory_.wait();
    }
    on_threads_->start(n > 0 ? count : 0, n, re, im);
    return std::make_unique<OnThreads>(on_threads_);
}

void CudaDenseBatch::do_read(const Batch& matrices, std::span<double> host) {
    const std::int64_t elements = matrices.rows * matrices.cols, count = matrices.size();
    if (count == 0 || elements == 0) return;
    device_.use();
    const std::int64_t step = read_step(count, elements);
    const auto [packed] = memory_.scratch(std::array{step * elements});
    const auto [from, to] = memory_.upload(matrices.at, pointers(packed, step, elements));
    for (std::int64_t begin = 0; begin < count; begin += step) {
        const std::int64_t some = std::min(step, count - begin);
        copy_blocks(some, {from + begin, matrices.ld}, matrices.rows, matrices.cols, {to, matrices.rows},
                    device_.stream());
        const auto landed = memory_.fetch(packed, some * elements);
        std::copy(landed.begin(), landed.end(), host.begin() + begin * elements);
    }
}

}  // namespace geom::cuda
