// What a measure sees of one layer: matrices in memory, as stored (f8 widened to f32 by its scales).
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/weight.hpp"
#include "core/range.hpp"
#include "kernels/backend.hpp"

namespace geom {

/// Which rows of a weight are wanted; no ranges: all of them.
struct WeightRequest {
    WeightFamily family = WeightFamily::q_proj;
    std::vector<Range> rows;  ///< rising, disjoint
};

struct LayerRequest {
    std::int64_t layer = 0;
    std::vector<WeightRequest> weights;
};

/// The type a stored type has in memory: f8 becomes f32, all others stay.
DType memory_dtype(DType stored) noexcept;

class LayerWeights {
public:
    std::int64_t layer() const noexcept { return layer_; }
    bool has(WeightFamily family) const noexcept;

    /// The whole matrix. Throws Error(internal) when only some of its rows were asked for, or none.
    MatrixRef matrix(WeightFamily family) const;

    /// Rows [rows.begin, rows.end) of the whole matrix. Throws Error(internal) when they were not asked for.
    MatrixRef rows(WeightFamily family, Range rows) const;

private:
    friend class LayerStream;

    struct Part {
        WeightFamily family = WeightFamily::q_proj;
        DType dtype = DType::bf16;  // in memory
        Range rows;                 // of the whole matrix
        std::int64_t cols = 0;
        const std::byte* data = nullptr;
    };
    std::int64_t layer_ = -1;
    std::vector<Part> parts_;
    std::vector<std::int64_t> whole_rows_ = std::vector<std::int64_t>(weight_family_count, -1);
};

}  // namespace geom
