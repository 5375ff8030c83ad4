#include "kernels/cpu/matrices.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <type_traits>
#include <utility>

#include "kernels/cpu/gram_tiles.hpp"
#include "kernels/cpu/large_matrix.hpp"
#include "kernels/cpu/leading_vectors.hpp"
#include "kernels/cpu/turning.hpp"

namespace geom::cpu {

namespace {

MatrixSize size_of_matrix(const MatrixRef& matrix) { return {matrix.rows, matrix.cols}; }

std::vector<MatrixSize> sizes_of(std::span<const MatrixRef> matrices) {
    std::vector<MatrixSize> sizes;
    for (const MatrixRef& matrix : matrices) sizes.push_back(size_of_matrix(matrix));
    return sizes;
}

std::int64_t order_of(const MatrixSize& size) { return std::min(size.rows, size.cols); }

std::int64_t square_doubles(const MatrixSize& size) { return Pieces::size(order_of(size) * order_of(size)); }

/// A square matrix, and what either way to the singular values takes beside it. In doubles.
std::int64_t doubles_for(const MatrixSize& size) {
    return square_doubles(size) +
           std::max({gram_scratch(size), order_of(size) + eigenvalue_scratch(order_of(size)), direct_scratch(size)}) +
           64;
}

/// The same with k vectors.
std::int64_t doubles_for_vectors(const MatrixSize& size, std::int64_t k) {
    return square_doubles(size) + vectors_scratch(size, k) + 64;
}

/// Work of a matrix, roughly: products with the long side, and the reduction.
double cost_of(const MatrixSize& size) {
    const auto n = static_cast<double>(order_of(size));
    return n * n * (static_cast<double>(std::max(size.rows, size.cols)) + 2 * n);
}

SingularValues by_gram(const MatrixRef& matrix, GramPath path, double* square, Pieces pieces) {
    const MatrixSize size = size_of_matrix(matrix);
    gram_of(matrix, path, square, pieces);
    if (!in_range(trace_of(square, order_of(size)))) return singular_values_of(matrix, square, pieces);
    return roots_of_gram(square, order_of(size), size, pieces);
}

LeadingVectors leading_by_gram(const MatrixRef& matrix, GramPath path, std::int64_t k, double* square, Pieces pieces) {
    gram_of(matrix, path, square, pieces);
    if (!in_range(trace_of(square, order_of(size_of_matrix(matrix)))))
        return leading_directly(matrix, square, k, pieces);
    return leading_of_gram(matrix, square, k, pieces);
}

std::int64_t sum_of_largest(std::vector<std::int64_t> bytes, std::int64_t count) {
    std::sort(bytes.begin(), bytes.end(), std::greater<>());
    const std::int64_t at_once = std::min<std::int64_t>(count, std::ssize(bytes));
    return std::accumulate(bytes.begin(), bytes.begin() + at_once, std::int64_t{0});
}

/// f(matrix, square, pieces) for every matrix, the most work first; results in the order of `matrices`. A matrix takes
/// doubles(size) of scratch.
template <class Doubles, class F>
auto side_by_side(std::span<const MatrixRef> matrices, Workers& workers, Doubles doubles, F f) {
    const std::vector<MatrixSize> sizes = sizes_of(matrices);
    std::vector<std::size_t> order(sizes.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return cost_of(sizes[a]) > cost_of(sizes[b]); });
    std::vector<Buffer> scratch(at(workers.size()));
    std::vector<std::invoke_result_t<F, const MatrixRef&, double*, Pieces>> out(matrices.size());
    workers.for_each(std::ssize(order), [&](std::int64_t i, int worker) {
        const std::size_t which = order[at(i)];
        Buffer& mine = scratch[at(worker)];
        const std::int64_t bytes = 8 * doubles(sizes[which]);
        if (mine.size() < bytes) {
            mine = Buffer();
            mine = allocate_host(bytes);
        }
        Pieces pieces{mine.as<double>()};
        double* square = pieces.take(square_doubles(sizes[which]));
        out[which] = f(matrices[which], square, pieces);
    });
    return out;
}

}  // namespace

CpuMatrices::CpuMatrices(Workers& workers, Isa isa)
    : workers_(workers), path_(isa >= Isa::avx512 ? GramPath::tiles : GramPath::library) {}

Buffer CpuMatrices::allocate(std::int64_t bytes) { return allocate_host(bytes); }

// As many as there are threads, the largest.
MatricesScratch CpuMatrices::scratch(std::span<const MatrixSize> sizes) const {
    std::vector<std::int64_t> bytes;
    for (const MatrixSize& size : sizes) bytes.push_back(8 * doubles_for(size));
    return {sum_of_largest(std::move(bytes), workers_.size()), 0};
}

MatricesScratch CpuMatrices::vectors_scratch(std::span<const MatrixSize> sizes, std::int64_t k) const {
    std::vector<std::int64_t> bytes;
    for (const MatrixSize& size : sizes) bytes.push_back(8 * doubles_for_vectors(size, k));
    return {sum_of_largest(std::move(bytes), workers_.size()), 0};
}

MatricesScratch CpuMatrices::strip_scratch(const MatrixSize& strip) const {
    const std::int64_t n = strip.cols;
    return {8 * (n * n + std::max(workers_.size() * tile_scratch(), n + eigenvalue_scratch(n) + 64)), 0};
}

std::vector<SingularValues> CpuMatrices::do_gram_singular_values(std::span<const MatrixRef> matrices) {
    return side_by_side(matrices, workers_, doubles_for,
                        [this](const MatrixRef& matrix, double* square, Pieces pieces) {
                            return by_gram(matrix, path_, square, pieces);
                        });
}

std::vector<LeadingVectors> CpuMatrices::do_gram_leading_vectors(std::span<const MatrixRef> matrices, std::int64_t k) {
    return side_by_side(
        matrices, workers_, [k](const MatrixSize& size) { return doubles_for_vectors(size, k); },
        [this, k](const MatrixRef& matrix, double* square, Pieces pieces) {
            return leading_by_gram(matrix, path_, k, square, pieces);
        });
}

std::vector<LeadingVectors> CpuMatrices::do_direct_leading_vectors(std::span<const MatrixRef> matrices,
                                                                   std::int64_t k) {
    return side_by_side(
        matrices, workers_, [k](const MatrixSize& size) { return doubles_for_vectors(size, k); },
        [k](const MatrixRef& matrix, double* square, Pieces pieces) {
            return leading_directly(matrix, square, k, pieces);
        });
}

std::vector<SingularValues> CpuMatrices::do_direct_singular_values(std::span<const MatrixRef> matrices) {
    return side_by_side(matrices, workers_, doubles_for, singular_values_of);
}

void CpuMatrices::do_add_gram(const MatrixRef& strip, bool first, double* gram) {
    std::vector<GramTile> tiles;
    const auto part = [&](std::int64_t begin) { return Range{begin, std::min(begin + gram_tile, strip.cols)}; };
    for (std::int64_t j = 0; j < strip.cols; j += gram_tile) {
        for (std::int64_t i = j; i < strip.cols; i += gram_tile) tiles.push_back({part(i), part(j), path_});
    }
    std::vector<Buffer> scratch(at(workers_.size()));
    workers_.for_each(std::ssize(tiles), [&](std::int64_t i, int worker) {
        Buffer& mine = scratch[at(worker)];
        if (!mine) mine = allocate_host(8 * tile_scratch());
        add_gram_tile(strip, tiles[at(i)], first, gram, {mine.as<double>()});
    });
}

SingularValues CpuMatrices::do_singular_values_of_gram(double* gram, const MatrixSize& size) {
    SingularValues out;
    const std::int64_t n = size.cols;
    workers_.for_each(1, [&](std::int64_t, int) {
        const Buffer scratch = allocate_host(8 * (n + eigenvalue_scratch(n) + 64));
        out = roots_of_gram(gram, n, size, {scratch.as<double>()});
    });
    return out;
}

std::int64_t CpuMatrices::turning_bytes(std::int64_t sets, std::int64_t rows, std::int64_t width, Turn turn) const {
    const TurningDoubles doubles = turning_doubles(rows, width, turn);
    const std::int64_t threads = workers_.size();
    return 8 * ((sets > 1 ? std::min(sets, threads) : 1) * doubles.shared + threads * doubles.scratch);
}

// Sets of one call may differ in shape.
std::vector<TurnedResiduals> CpuMatrices::do_turned_residuals(std::span<const TiedRows> sets, Turn turn) {
    TurningDoubles most;
    for (const TiedRows& set : sets) {
        const TurningDoubles doubles = turning_doubles(set.rows(), set.width(), turn);
        most = {std::max(most.shared, doubles.shared), std::max(most.scratch, doubles.scratch)};
    }
    std::vector<TurnedResiduals> out(sets.size());
    if (sets.size() == 1) {
        const Buffer shared = allocate_host(8 * most.shared),
                     scratch = allocate_host(8 * most.scratch * workers_.size());
        const Team team(workers_, scratch.as<double>(), most.scratch);
        out[0] = turned_residuals_of(team, path_, sets[0], turn, shared.as<double>());
        return out;
    }
    std::vector<Buffer> memory(at(workers_.size()));
    workers_.for_each(std::ssize(sets), [&](std::int64_t i, int worker) {
        Buffer& mine = memory[at(worker)];
        if (!mine) mine = allocate_host(8 * (most.shared + most.scratch));
        const Team team(mine.as<double>() + most.shared);
        out[at(i)] = turned_residuals_of(team, path_, sets[at(i)], turn, mine.as<double>());
    });
    return out;
}

}  // namespace geom::cpu
