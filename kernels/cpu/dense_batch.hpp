// The CPU body of DenseBatch: one library call on one thread a matrix, the batch over the workers.
#pragma once

#include <vector>

#include "kernels/dense_batch.hpp"
#include "kernels/workers.hpp"

namespace geom::cpu {

class CpuDenseBatch final : public DenseBatch {
public:
    explicit CpuDenseBatch(Workers& workers);

    Buffer allocate(std::int64_t bytes) override;
    Workers& workers() override { return workers_; }
    std::int64_t heads_at_once() const override { return 32; }
    std::int64_t scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t hidden,
                               std::int64_t top_k) const override;

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

    /// Scratch memory of a thread, kept between calls; what it held is lost.
    double* scratch(int worker, std::int64_t doubles);

    Workers& workers_;
    std::vector<Buffer> scratch_;
};

}  // namespace geom::cpu
