// What a measure sees of one layer: matrices in memory, as stored (f8 widened to f32 by its scales).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/weight.hpp"
#include "core/range.hpp"
#include "kernels/backend.hpp"

namespace geom {

/// Which rows of a weight are wanted.
struct WeightRequest {
    WeightFamily family = WeightFamily::q_proj;
    std::vector<Range> rows;   ///< rising, disjoint; none: all
    std::int64_t expert = -1;  ///< of a mixture; -1: the layer's own
    bool repeated = false;     ///< read by somebody else as well (a halo): not counted in the digest

    friend bool operator==(const WeightRequest&, const WeightRequest&) = default;
};

struct LayerRequest {
    std::int64_t layer = -1;  ///< -1: what belongs to no layer (embed_tokens, lm_head, final_norm)
    std::vector<WeightRequest> weights;
    std::int32_t checkpoint = 0;  ///< which of the stream's checkpoints

    friend bool operator==(const LayerRequest&, const LayerRequest&) = default;
};

class LayerWeights {
public:
    std::int64_t layer() const noexcept { return layer_; }  ///< -1: of no layer

    /// Whether any of its rows were asked for.
    bool has(WeightFamily family, std::int64_t expert = -1) const noexcept;

    /// The whole matrix. Throws Error(internal) when only some of its rows were asked for, or none.
    MatrixRef matrix(WeightFamily family, std::int64_t expert = -1) const;

    /// Rows [rows.begin, rows.end) of the whole matrix. Throws Error(internal) when they were not asked for, or not as
    /// one range.
    MatrixRef rows(WeightFamily family, Range rows, std::int64_t expert = -1) const;

    /// The same of a block of a head, with the exponent that it is multiplied without: from its largest magnitude.
    /// Throws Error(numerics), with tensor and row, for f64 whose largest magnitude is not in [2^-200, 2^200): the
    /// squares of squares of products would leave the range of f64.
    MatrixRef head_block(WeightFamily family, Range rows) const;

    /// The smallest e with all magnitudes of these rows below 2^e; nothing for rows of zeros. Throws as head_block.
    std::optional<std::int32_t> exponent(WeightFamily family, Range rows) const;

    /// The same layer with other elements of one matrix: `matrix` is whole, of the same shape, in the backend's memory,
    /// and outlives what is returned. Throws Error(internal) where there is no such matrix.
    LayerWeights with(WeightFamily family, const MatrixRef& matrix) const;

private:
    friend class LayerStream;

    struct Part {
        WeightFamily family = WeightFamily::q_proj;
        std::int64_t expert = -1;
        DType dtype = DType::bf16;  // in memory
        Range rows;                 // of the whole matrix
        std::int64_t whole_rows = 0;
        std::int64_t cols = 0;
        const std::byte* data = nullptr;
        std::string tensor;  // and its row of the matrix's first one, for messages
        std::int64_t first_row = 0;
        std::vector<std::int16_t> exponents;  // of rows: see exponent_of
    };
    const Part* first_part(WeightFamily family, std::int64_t expert) const noexcept;
    const Part& part_of(WeightFamily family, Range rows, std::int64_t expert) const;

    std::int64_t layer_ = -1;
    std::vector<Part> parts_;
};

}  // namespace geom
