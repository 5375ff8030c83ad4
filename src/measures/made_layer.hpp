// A layer that was made in memory, as gauges take it.
#pragma once

#include <map>
#include <vector>

#include "measures/layer_pair.hpp"
#include "model/random_gauge.hpp"

namespace geom {

/// A layer's matrices in f32, and the norm weights that are folded into them.
class MadeLayer {
public:
    explicit MadeLayer(const LayerTensors& layer);

    /// [rows, cols] as a checkpoint has it, norms and biases one row; data is null where the layer lacks it.
    MatrixRef matrix(WeightFamily family) const;
    /// With the norm weights that feed it.
    FoldedMatrix folded(WeightFamily family) const;
    const PairShape& shape() const noexcept { return shape_; }

private:
    PairShape shape_;
    std::map<WeightFamily, std::vector<float>> stored_;
    std::map<WeightFamily, std::vector<double>> norms_;
};

/// Both of the same shape; they have to outlive what is returned.
LayerPair pair_of(const MadeLayer& a, const MadeLayer& b, bool folded);

}  // namespace geom
