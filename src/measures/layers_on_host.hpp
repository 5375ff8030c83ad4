// Two consecutive layers in the host's memory, for gauges.
#pragma once

#include <deque>
#include <vector>

#include "core/model_shape.hpp"
#include "measures/layer_pair.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// The sizes that rows `row` - 1 and `row` share.
PairShape pair_shape(const ModelShape& shape, std::int64_t row);

/// Two layers while a measure looks at them; on a GPU copies of what was asked for.
class LayersOnHost {
public:
    /// These families of row - 1 (null: none are in memory) and of row.
    LayersOnHost(const ModelShape& shape, std::int64_t row, const LayerWeights* before, const LayerWeights& after,
                 std::span<const WeightFamily> families, Backend& backend);

    const LayerPair& stored() const noexcept { return stored_; }
    const LayerPair& folded() const noexcept { return folded_; }

    /// Bytes of the host's memory for families of row - 1 and row.
    static std::int64_t bytes(const ModelShape& shape, std::int64_t row, std::span<const WeightFamily> families,
                              bool on_device);

private:
    MatrixRef on_host(const MatrixRef& matrix, Backend& backend);
    const double* fold_of(const MatrixRef& norm);

    LayerPair stored_, folded_;
    std::vector<Buffer> copies_;
    std::deque<std::vector<double>> folds_;
};

}  // namespace geom
