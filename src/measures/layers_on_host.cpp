#include "measures/layers_on_host.hpp"

#include <algorithm>

#include "kernels/cpu/stored_rows.hpp"

namespace geom {

namespace {

bool same_size(const LayerShape& a, const LayerShape& b, WeightFamily family) {
    const WeightShape *of_a = a.find(family), *of_b = b.find(family);
    return of_a != nullptr && of_b != nullptr && of_a->rows == of_b->rows && of_a->cols == of_b->cols;
}

}  // namespace

PairShape pair_shape(const ModelShape& shape, std::int64_t row) {
    const LayerShape &a = shape.at(row - 1), &b = shape.at(row);
    const auto same = [&](std::initializer_list<WeightFamily> families) {
        return std::all_of(families.begin(), families.end(),
                           [&](WeightFamily family) { return same_size(a, b, family); });
    };
    PairShape pair;
    pair.hidden = shape.hidden;
    if (a.attention && b.attention && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
        same({WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj, WeightFamily::o_proj})) {
        pair.heads = shape.heads;
        pair.kv_heads = a.kv_heads;
        pair.head_dim = a.head_dim;
    }
    if (same({WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj}))
        pair.intermediate = a.find(WeightFamily::gate_proj)->rows;
    return pair;
}

LayersOnHost::LayersOnHost(const ModelShape& shape, std::int64_t row, const LayerWeights* before,
                           const LayerWeights& after, std::span<const WeightFamily> families, Backend& backend) {
    stored_.layer = shape.at(row).number;
    stored_.shape = pair_shape(shape, row);
    for (const WeightFamily family : families) {
        if (before == nullptr || !before->has(family) || !after.has(family)) continue;
        if (!same_size(shape.at(row - 1), shape.at(row), family)) continue;
        FamilyPair& pair = stored_.families[place_of(family)];
        pair.a.stored = on_host(before->matrix(family), backend);
        pair.b.stored = on_host(after.matrix(family), backend);
    }
    if (!copies_.empty()) backend.queue().wait();
    folded_ = stored_;
    for (const WeightFamily family : families) {
        FamilyPair& pair = folded_.families[place_of(family)];
        const WeightFamily norm = norm_before(family);
        if (!pair || norm == family || !stored_.of(norm)) continue;
        pair.a.fold = fold_of(stored_.of(norm).a.stored);
        pair.b.fold = fold_of(stored_.of(norm).b.stored);
    }
}

MatrixRef LayersOnHost::on_host(const MatrixRef& matrix, Backend& backend) {
    if (!backend.on_device()) return matrix;
    const std::int64_t bytes = matrix.rows * matrix.cols * size_of(matrix.dtype);
    copies_.push_back(backend.queue().allocate_staging(bytes));
    backend.queue().copy(copies_.back().data(), matrix.data, bytes);
    return {copies_.back().data(), matrix.dtype, matrix.rows, matrix.cols};
}

const double* LayersOnHost::fold_of(const MatrixRef& norm) {
    folds_.emplace_back(static_cast<std::size_t>(norm.rows * norm.cols));
    cpu::widen(norm, {0, norm.cols}, folds_.back().data());
    return folds_.back().data();
}

std::int64_t LayersOnHost::bytes(const ModelShape& shape, std::int64_t row, std::span<const WeightFamily> families,
                                 bool on_device) {
    std::int64_t bytes = 10 * shape.hidden * 8;  // two folds of each of five families
    for (const std::int64_t r : {row - 1, row}) {
        for (const WeightFamily family : families) {
            const WeightShape* weight = shape.at(r).find(family);
            if (weight != nullptr && on_device) bytes += weight->memory_bytes();
        }
    }
    return bytes;
}

}  // namespace geom
