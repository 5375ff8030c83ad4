// Sizes that the files of CudaDenseBatch share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/dense_batch_kernels.hpp"
#include "kernels/cuda/jacobi.cuh"
#include "kernels/cuda/widen.hpp"
#include "kernels/dense_batch.hpp"

namespace geom::cuda {

/// Columns of D that are widened at a time: 36 panels of 128 rows take 38 MB, which L2 of an H100 holds, and products
/// of that depth are long enough to hide that their results are read and written for each.
constexpr std::int64_t panel = 1024;

inline int narrow(std::int64_t n) { return static_cast<int>(n); }
inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Doubles that hold `count` elements of another type.
template <class T>
constexpr std::int64_t doubles_for(std::int64_t count) {
    return (count * static_cast<std::int64_t>(sizeof(T)) + 7) / 8;
}

/// Matrices of order n that cusolverDnXsyevBatched takes at once: it counts elements in 32 bits.
constexpr std::int64_t eigen_step(std::int64_t n) {
    return std::max<std::int64_t>(1, std::numeric_limits<std::int32_t>::max() / std::max<std::int64_t>(1, n * n));
}

/// Matrices of so many elements that go to the host at once, of `count`: pinned memory is dear.
constexpr std::int64_t read_step(std::int64_t count, std::int64_t elements) {
    const std::int64_t pinned = std::int64_t{2} << 20;  // doubles
    return std::clamp<std::int64_t>(pinned / std::max<std::int64_t>(1, elements), 1, std::max<std::int64_t>(1, count));
}

/// The most that any verb uploads for `batch` matrices: 15 pointers each in stacked_grams, one a panel and 4 in
/// combine_rows; up to 63 bytes of padding an array.
constexpr std::int64_t upload_bytes(std::int64_t batch, std::int64_t hidden) {
    return 8 * batch * std::max<std::int64_t>(15, 4 + (hidden + panel - 1) / panel) + 1024;
}

/// Where the matrices of a contiguous array begin.
inline std::vector<double*> pointers(double* first, std::int64_t count, std::int64_t stride) {
    std::vector<double*> all(at(count));
    for (std::int64_t i = 0; i < count; ++i) all[at(i)] = first + i * stride;
    return all;
}

}  // namespace geom::cuda
