#include "stream/layer_weights.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"

namespace geom {

DType memory_dtype(DType stored) noexcept {
    return stored == DType::f8_e4m3 || stored == DType::f8_e5m2 ? DType::f32 : stored;
}

bool LayerWeights::has(WeightFamily family) const noexcept {
    return std::any_of(parts_.begin(), parts_.end(), [&](const Part& part) { return part.family == family; });
}

MatrixRef LayerWeights::matrix(WeightFamily family) const {
    return rows(family, {0, whole_rows_[static_cast<std::size_t>(family)]});
}

MatrixRef LayerWeights::rows(WeightFamily family, Range rows) const {
    for (const Part& part : parts_) {
        if (part.family != family || rows.begin < part.rows.begin || rows.end > part.rows.end) continue;
        const std::int64_t skipped = (rows.begin - part.rows.begin) * part.cols * size_of(part.dtype);
        return {part.data + skipped, part.dtype, rows.size(), part.cols};
    }
    throw Error(ExitCode::internal, fmt::format("rows {} to {} of {} of layer {} are not in memory", rows.begin,
                                                rows.end, name_of(family), layer_));
}

}  // namespace geom
