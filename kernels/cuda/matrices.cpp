#include "kernels/cuda/matrices.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace geom::cuda {

namespace {

constexpr std::int64_t widest_element = 8;
constexpr std::int64_t copied_at_once = std::int64_t{4} << 30;  ///< bytes, unless one matrix is larger

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

CudaMatrices::CudaMatrices(Device& device, Workers& workers)
    : device_(device), queue_(device), host_(workers, usable_isa()), gram_spectra_(device, workers) {}

Buffer CudaMatrices::allocate(std::int64_t bytes) {
    device_.use();
    return device_.allocate(bytes);
}

MatricesScratch CudaMatrices::scratch(std::span<const MatrixSize> sizes) const {
    std::int64_t all = 0, largest = 0;
    for (const MatrixSize& size : sizes) {
        const std::int64_t bytes = size.rows * size.cols * widest_element;
        all += bytes;
        largest = std::max(largest, bytes);
    }
    const std::int64_t copies = std::max(largest, std::min(all, copied_at_once));
    return {0, host_.scratch(sizes).backend + copies, gram_spectra_.bytes(sizes)};
}

MatricesScratch CudaMatrices::vectors_scratch(std::span<const MatrixSize> sizes, std::int64_t k) const {
    return {0, host_.vectors_scratch(sizes, k).backend + copied_bytes(sizes), 0};
}

MatricesScratch CudaMatrices::strip_scratch(const MatrixSize& strip) const {
    return {8 * strip.cols * strip.cols, 0, gram_spectra_.strip_bytes(strip.cols)};
}

std::vector<SingularValues> CudaMatrices::do_gram_singular_values(std::span<const MatrixRef> matrices) {
    std::vector<std::optional<SingularValues>> found = gram_spectra_.of(matrices);
    std::vector<MatrixRef> beyond_range;
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (!found[i]) beyond_range.push_back(matrices[i]);
    }
    std::vector<SingularValues> out, direct = do_direct_singular_values(beyond_range);
    auto next = direct.begin();
    for (std::optional<SingularValues>& each : found) out.push_back(std::move(each ? *each : *next++));
    return out;
}

std::vector<LeadingVectors> CudaMatrices::do_gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) {
    return host_.gram_leading_vectors(OnHost(matrices, queue_).refs(), k);
}

std::vector<LeadingVectors> CudaMatrices::do_direct_leading_vectors(std::span<const MatrixRef> matrices,
                                                                    std::int64_t k) {
    return host_.direct_leading_vectors(OnHost(matrices, queue_).refs(), k);
}

std::vector<SingularValues> CudaMatrices::do_direct_singular_values(std::span<const MatrixRef> matrices) {
    std::vector<SingularValues> out;
    while (!matrices.empty()) {
        std::size_t count = 1;
        std::int64_t bytes = stored_bytes(matrices[0]);
        while (count < matrices.size() && (bytes += stored_bytes(matrices[count])) <= copied_at_once) ++count;
        std::vector<SingularValues> some = host_.direct_singular_values(OnHost(matrices.first(count), queue_).refs());
        std::move(some.begin(), some.end(), std::back_inserter(out));
        matrices = matrices.subspan(count);
    }
    return out;
}

void CudaMatrices::do_add_gram(const MatrixRef& strip, bool first, double* gram) {
    gram_spectra_.add_strip(strip, first, gram);
}

SingularValues CudaMatrices::do_singular_values_of_gram(double* gram, const MatrixSize& size) {
    return gram_spectra_.of_sum(gram, size);
}

}  // namespace geom::cuda
