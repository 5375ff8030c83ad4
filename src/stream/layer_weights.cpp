#include "stream/layer_weights.hpp"

#include <fmt/format.h>

#include "core/error.hpp"

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

MatrixRef LayerWeights::rows(WeightFamily family, Range rows, std::int64_t expert) const {
    for (const Part& part : parts_) {
        if (part.family != family || part.expert != expert) continue;
        if (rows.begin < part.rows.begin || rows.end > part.rows.end) continue;
        const std::int64_t skipped = (rows.begin - part.rows.begin) * part.cols * size_of(part.dtype);
        return {part.data + skipped, part.dtype, rows.size(), part.cols};
    }
    throw Error(ExitCode::internal, fmt::format("rows {} to {} of {}{}{} are not in memory", rows.begin, rows.end,
                                                name_of(family), expert < 0 ? "" : fmt::format(" of expert {}", expert),
                                                layer_ < 0 ? "" : fmt::format(" of layer {}", layer_)));
}

LayerWeights LayerWeights::with(WeightFamily family, const MatrixRef& matrix) const {
    LayerWeights out = *this;
    for (Part& part : out.parts_) {
        if (part.family != family || part.expert >= 0 || part.rows != Range{0, matrix.rows} || part.cols != matrix.cols)
            continue;
        part.dtype = matrix.dtype;
        part.data = matrix.data;
        return out;
    }
    throw Error(ExitCode::internal,
                fmt::format("{} of layer {} is not {} x {}", name_of(family), layer_, matrix.rows, matrix.cols));
}

}  // namespace geom
