// The CUDA body of DenseBatch: batched calls of cuBLAS and cuSOLVER, kernels of our own between them, and the host's
// threads for the eigenvalues of general matrices, which no GPU library has. Everything is issued to device.stream().
#pragma once

#include <memory>

#include "kernels/cuda/dense_batch_memory.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/dense_batch.hpp"
#include "kernels/workers.hpp"

namespace geom::cuda {

class CudaDenseBatch final : public DenseBatch {
public:
    /// The same `workers` run general_eigenvalues: nothing else may be started on them until its finish().
    CudaDenseBatch(Device& device, Workers& workers);
    ~CudaDenseBatch() override;
    CudaDenseBatch(const CudaDenseBatch&) = delete;
    CudaDenseBatch& operator=(const CudaDenseBatch&) = delete;

    Buffer allocate(std::int64_t bytes) override;
    Workers& workers() override;
    std::int64_t heads_at_once() const override { return 128; }  ///< a block of the SVD each, on as many SMs
    std::int64_t scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t hidden,
                               std::int64_t top_k) const override;
    /// What is kept now.
    std::int64_t held_bytes() const noexcept { return memory_.held_bytes(); }

private:
    void do_stacked_grams(std::span<const MatrixRef> first, std::span<const MatrixRef> second,
                          const Batch& out) override;
    void do_cholesky(const Batch& gram, const Batch& lower, std::span<CholeskyReport> reports) override;
    void do_qr_lower(std::span<const MatrixRef> first, std::span<const MatrixRef> second, const Batch& lower,
                     std::span<double> min_sine) override;
    void do_product_singular_values(const Batch& left, const Batch& right, std::span<double> values, const Batch& u,
                                    const Batch& v) override;
    void do_solve_transposed(const Batch& lower, const Batch& x) override;
    void do_combine_rows(std::span<const MatrixRef> w, const Batch& z, const Batch& out) override;
    void do_combine_orthonormal(std::span<const MatrixRef> w, const Batch& z, const Batch& out) override;
    void do_exchange_products(const Batch& lower, const Batch& out, std::span<double> asymmetry) override;
    void do_symmetric_eigenvalues(const Batch& matrices, std::span<double> values) override;
    std::unique_ptr<PendingResult> do_general_eigenvalues(const Batch& matrices, std::span<double> re,
                                                          std::span<double> im) override;
    void do_read(const Batch& matrices, std::span<double> host) override;

    struct HostEigenvalues;
    class OnThreads;

    // Sizes, in doubles, of the pieces of scratch memory a verb takes: dense_batch_scratch.cpp
    std::array<std::int64_t, 1> grams_pieces(std::int64_t batch, std::int64_t n, std::int64_t hidden) const;
    std::array<std::int64_t, 2> cholesky_pieces(std::int64_t batch, std::int64_t n) const;
    std::array<std::int64_t, 4> qr_pieces(std::int64_t batch, std::int64_t n, std::int64_t hidden) const;
    std::array<std::int64_t, 4> orthonormal_pieces(std::int64_t batch, std::int64_t n, std::int64_t hidden,
                                                   std::int64_t k) const;
    std::array<std::int64_t, 6> svd_pieces(std::int64_t batch, std::int64_t n) const;
    std::array<std::int64_t, 1> combine_pieces(std::int64_t batch, std::int64_t n, std::int64_t hidden) const;
    std::array<std::int64_t, 2> exchange_pieces(std::int64_t batch, std::int64_t order) const;
    std::array<std::int64_t, 3> eigen_pieces(std::int64_t batch, std::int64_t n) const;

    int qr_workspace(std::int64_t hidden, std::int64_t n) const;
    int reflect_workspace(std::int64_t hidden, std::int64_t n, std::int64_t k) const;
    struct EigenWorkspace {
        std::size_t device_bytes = 0, host_bytes = 0;
    };
    EigenWorkspace eigen_workspace(std::int64_t batch, std::int64_t n) const;

    void factor(double* matrix, std::int64_t hidden, std::int64_t n, double* tau, double* work, int* info);
    void eigenvalues_of(double* matrices, std::int64_t batch, std::int64_t n, double* values, double* work, int* infos);

    Device& device_;
    BatchMemory memory_;
    std::vector<std::byte> solver_host_;  ///< cuSOLVER's workspace on the host
    std::shared_ptr<HostEigenvalues> on_threads_;
};

}  // namespace geom::cuda
