#include "kernels/cuda/matrices.hpp"

namespace geom::cuda {

namespace {

constexpr std::int64_t widest_element = 8;

std::int64_t stored_bytes(const MatrixRef& matrix) { return matrix.rows * matrix.cols * size_of(matrix.dtype); }

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
    std::int64_t host = host_.scratch(sizes).backend;
    for (const MatrixSize& size : sizes) host += size.rows * size.cols * widest_element;
    return {0, host};
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

void HostMatrices::do_add_gram(const MatrixRef& strip, bool first, double* gram) {
    host_.add_gram(OnHost({&strip, 1}, queue_).refs()[0], first, gram);
}

SingularValues HostMatrices::do_singular_values_of_gram(double* gram, const MatrixSize& size) {
    return host_.singular_values_of_gram(gram, size);
}

}  // namespace geom::cuda
