// Matrices for a rank with a GPU, on the rank's host threads: what is stored is copied from the GPU, and the CPU body
// does the rest, to the same bits as without a GPU.
#pragma once

#include "kernels/cpu/matrices.hpp"
#include "kernels/cuda/device.hpp"

namespace geom::cuda {

class HostMatrices final : public Matrices {
public:
    HostMatrices(Queue& queue, Workers& workers) : queue_(queue), host_(workers, usable_isa()) {}

    Buffer allocate(std::int64_t bytes) override { return host_.allocate(bytes); }
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

    Queue& queue_;
    cpu::CpuMatrices host_;
};

}  // namespace geom::cuda
