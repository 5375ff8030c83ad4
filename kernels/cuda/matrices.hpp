// Matrices for a rank with a GPU. Singular values by Gram matrices are the GPU's (gram_spectra.hpp); all other verbs
// are done on the rank's host threads by the CPU body, on copies of what is stored, to the same bits as without a GPU:
// direct_singular_values, which few matrices need, those whose squares leave fp64's range among them.
#pragma once

#include "kernels/cpu/matrices.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/gram_spectra.hpp"

namespace geom::cuda {

class CudaMatrices final : public Matrices {
public:
    CudaMatrices(Device& device, Workers& workers);

    Buffer allocate(std::int64_t bytes) override;
    MatricesScratch scratch(std::span<const MatrixSize> sizes) const override;
    MatricesScratch vectors_scratch(std::span<const MatrixSize> sizes, std::int64_t k) const override;
    MatricesScratch strip_scratch(const MatrixSize& strip) const override;
    std::int64_t turning_bytes(std::int64_t sets, std::int64_t rows, std::int64_t width, Turn turn) const override {
        return host_.turning_bytes(sets, rows, width, turn);
    }

private:
    std::vector<SingularValues> do_gram_singular_values(std::span<const MatrixRef> matrices) override;
    std::vector<SingularValues> do_direct_singular_values(std::span<const MatrixRef> matrices) override;
    std::vector<TurnedResiduals> do_turned_residuals(std::span<const TiedRows> sets, Turn turn) override {
        return host_.turned_residuals(sets, turn);
    }
    std::vector<LeadingVectors> do_gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) override;
    std::vector<LeadingVectors> do_direct_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) override;
    void do_add_gram(const MatrixRef& strip, bool first, double* gram) override;
    SingularValues do_singular_values_of_gram(double* gram, const MatrixSize& size) override;

    Device& device_;
    DeviceQueue queue_;
    cpu::CpuMatrices host_;
    GramSpectra gram_spectra_;
};

}  // namespace geom::cuda
