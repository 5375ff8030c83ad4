#include "kernels/cuda/matrices.hpp"

namespace geom::cuda {

namespace {

constexpr std::int64_t widest_element = 8;

std::int64_t stored_bytes(const MatrixRef& matrix) { return matrix.rows * matrix.cols * size_of(matrix.dtype); }

std::int64_t copied_bytes(std::span<const MatrixSize> sizes) {
    std::int64_t bytes = 0;
    for (const MatrixSize& size : sizes) bytes += size.rows * size.cols * widest_element;
    return bytes;
}

/// Copies of matrices in the host's memory.
class OnHost {
public:
    OnHost(std::span<const MatrixRef> matrices, Queue& queue) {
        std::int64_t bytes = 0;
        for (const MatrixRef& matrix : matrices) bytes += stored_bytes(matrix);
        memory_ = queue.allocate_staging(bytes);
        std::byte* to = memory_.data();
        for (MatrixRef matrix : matrices) {
            queue.copy(to, matrix.data, stored_bytes(matrix));
            matrix.data = to;
            refs_.push_back(matrix);
            to += stored_bytes(matrix);
        }
        queue.wait();
    }
    std::span<const MatrixRef> refs() const noexcept { return refs_; }

private:
    Buffer memory_;
    std::vector<MatrixRef> refs_;
};

}  // namespace

MatricesScratch HostMatrices::scratch(std::span<const MatrixSize> sizes) const {
    return {0, host_.scratch(sizes).backend + copied_bytes(sizes)};
}

MatricesScratch HostMatrices::vectors_scratch(std::span<const MatrixSize> sizes, std::int64_t k) const {
    return {0, host_.vectors_scratch(sizes, k).backend + copied_bytes(sizes)};
}

MatricesScratch HostMatrices::strip_scratch(const MatrixSize& strip) const {
    return {0, host_.strip_scratch(strip).backend + strip.rows * strip.cols * widest_element};
}

std::vector<SingularValues> HostMatrices::do_gram_singular_values(std::span<const MatrixRef> matrices) {
    return host_.gram_singular_values(OnHost(matrices, queue_).refs());
}

std::vector<SingularValues> HostMatrices::do_direct_singular_values(std::span<const MatrixRef> matrices) {
    return host_.direct_singular_values(OnHost(matrices, queue_).refs());
}

std::vector<LeadingVectors> HostMatrices::do_gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) {
    return host_.gram_leading_vectors(OnHost(matrices, queue_).refs(), k);
}

std::vector<LeadingVectors> HostMatrices::do_direct_leading_vectors(std::span<const MatrixRef> matrices,
                                                                    std::int64_t k) {
    return host_.direct_leading_vectors(OnHost(matrices, queue_).refs(), k);
}

void HostMatrices::do_add_gram(const MatrixRef& strip, bool first, double* gram) {
    host_.add_gram(OnHost({&strip, 1}, queue_).refs()[0], first, gram);
}

SingularValues HostMatrices::do_singular_values_of_gram(double* gram, const MatrixSize& size) {
    return host_.singular_values_of_gram(gram, size);
}

}  // namespace geom::cuda
