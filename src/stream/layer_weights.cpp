#include "stream/layer_weights.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "stream/reader.hpp"

namespace geom {

const LayerWeights::Part* LayerWeights::first_part(WeightFamily family, std::int64_t expert) const noexcept {
    for (const Part& part : parts_) {
        if (part.family == family && part.expert == expert) return &part;
    }
    return nullptr;
}

bool LayerWeights::has(WeightFamily family, std::int64_t expert) const noexcept {
    return first_part(family, expert) != nullptr;
}

MatrixRef LayerWeights::matrix(WeightFamily family, std::int64_t expert) const {
    const Part* part = first_part(family, expert);
    return rows(family, {0, part != nullptr ? part->whole_rows : 0}, expert);
}

const LayerWeights::Part& LayerWeights::part_of(WeightFamily family, Range rows, std::int64_t expert) const {
    for (const Part& part : parts_) {
        if (part.family != family || part.expert != expert) continue;
        if (rows.begin >= part.rows.begin && rows.end <= part.rows.end) return part;
    }
    throw Error(ExitCode::internal, fmt::format("rows {} to {} of {}{}{} are not in memory", rows.begin, rows.end,
                                                name_of(family), expert < 0 ? "" : fmt::format(" of expert {}", expert),
                                                layer_ < 0 ? "" : fmt::format(" of layer {}", layer_)));
}

MatrixRef LayerWeights::rows(WeightFamily family, Range rows, std::int64_t expert) const {
    const Part& part = part_of(family, rows, expert);
    const std::int64_t skipped = (rows.begin - part.rows.begin) * part.cols * size_of(part.dtype);
    return {part.data + skipped, part.dtype, rows.size(), part.cols};
}

MatrixRef LayerWeights::head_block(WeightFamily family, Range rows) const {
    MatrixRef block = this->rows(family, rows);
    if (const auto largest = exponent(family, rows)) block.exponent = block_exponent(*largest);
    return block;
}

std::optional<std::int32_t> LayerWeights::exponent(WeightFamily family, Range rows) const {
    constexpr int farthest = 200;
    const Part& part = part_of(family, rows, -1);
    const auto first = part.exponents.begin() + (rows.begin - part.rows.begin);
    const auto largest = std::max_element(first, first + rows.size());
    if (rows.empty() || *largest == exponent_of_zero) return std::nullopt;
    if (part.dtype == DType::f64 && (*largest > farthest || *largest <= -farthest)) {
        throw Error(ExitCode::numerics,
                    fmt::format("tensor '{}': the largest magnitude of rows {} to {} is about 2^{}, in row {}: heads "
                                "are measured between 2^-{} and 2^{}",
                                part.tensor, part.first_row + rows.begin, part.first_row + rows.end - 1, *largest - 1,
                                part.first_row + rows.begin + (largest - first), farthest, farthest));
    }
    return *largest;
}

LayerWeights LayerWeights::with(WeightFamily family, const MatrixRef& matrix) const {
    LayerWeights out = *this;
    for (Part& part : out.parts_) {
        if (part.family != family || part.expert >= 0 || part.rows != Range{0, matrix.rows} || part.cols != matrix.cols)
            continue;
        part.dtype = matrix.dtype;
        part.data = matrix.data;
        // of the same size, about; any of its rows may now be the largest
        const auto largest = std::max_element(part.exponents.begin(), part.exponents.end());
        if (largest != part.exponents.end())
            std::fill(part.exponents.begin(), part.exponents.end(), std::int16_t{*largest});
        return out;
    }
    throw Error(ExitCode::internal,
                fmt::format("{} of layer {} is not {} x {}", name_of(family), layer_, matrix.rows, matrix.cols));
}

}  // namespace geom
