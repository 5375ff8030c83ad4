// The CPU body of Matrices: matrices side by side, the largest first, each on one thread; strips of one matrix in tiles
// of its Gram matrix whose size is fixed; tied rows side by side, or one set in tiles of its products.
#pragma once

#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/large_matrix.hpp"
#include "kernels/matrices.hpp"
#include "kernels/workers.hpp"

namespace geom::cpu {

class CpuMatrices final : public Matrices {
public:
    /// Tiles where `isa` has AVX-512, which all ranks of a job must answer alike for results to be the same bits.
    CpuMatrices(Workers& workers, Isa isa);

    Buffer allocate(std::int64_t bytes) override;
    MatricesScratch scratch(std::span<const MatrixSize> sizes) const override;
    MatricesScratch vectors_scratch(std::span<const MatrixSize> sizes, std::int64_t k) const override;
    MatricesScratch strip_scratch(const MatrixSize& strip) const override;
    std::int64_t turning_bytes(std::int64_t sets, std::int64_t rows, std::int64_t width, Turn turn) const override;

private:
    std::vector<SingularValues> do_gram_singular_values(std::span<const MatrixRef> matrices) override;
    std::vector<SingularValues> do_direct_singular_values(std::span<const MatrixRef> matrices) override;
    std::vector<TurnedResiduals> do_turned_residuals(std::span<const TiedRows> sets, Turn turn) override;
    std::vector<LeadingVectors> do_gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) override;
    std::vector<LeadingVectors> do_direct_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) override;
    void do_add_gram(const MatrixRef& strip, bool first, double* gram) override;
    SingularValues do_singular_values_of_gram(double* gram, const MatrixSize& size) override;

    Workers& workers_;
    GramPath path_;
};

}  // namespace geom::cpu
