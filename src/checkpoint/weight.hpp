// One weight of a model: which matrix it is, its shape and type, and where its bytes come from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "core/dtype.hpp"
#include "core/range.hpp"
#include "core/weight_family.hpp"

namespace geom {

/// Bytes [offset, offset + bytes) of a file: whole rows of one tensor.
struct FileSource {
    std::int32_t file = 0;  ///< index into Checkpoint::files()
    std::int64_t offset = 0;
};

/// Values made by the counter-based generator (checkpoint/synthetic.hpp).
/// value[i] = base_factor * s(base_key, i) + own_factor * s(own_key, i), times 2^-exponent; or constant.
struct SyntheticSource {
    std::uint64_t seed = 0;
    std::uint64_t base_key = 0;
    std::uint64_t own_key = 0;
    std::int64_t base_factor = 0;
    std::int64_t own_factor = 0;
    int exponent = 0;
    std::int64_t first_element = 0;  ///< index, inside the stored tensor, of this weight's first element
    bool is_constant = false;
    double constant = 0.0;
};

/// Where the scales of an f8 tensor are: a small row-major matrix of its own. Element (i, j) of the f8 tensor is
/// multiplied by scale (i / block_rows, j / block_cols).
struct ScaleSource {
    std::string tensor;  ///< its name
    FileSource at;
    DType dtype = DType::f32;  ///< or bf16
    std::int64_t rows = 0;     ///< of scales
    std::int64_t cols = 0;
    std::int64_t block_rows = 0;  ///< of the f8 tensor, to one scale
    std::int64_t block_cols = 0;

    std::int64_t row_bytes() const noexcept { return cols * size_of(dtype); }
    std::int64_t bytes() const noexcept { return rows * row_bytes(); }
};

/// A row-major matrix as stored: a whole tensor, or some rows of a fused one.
struct Weight {
    std::string tensor;         ///< name of the stored tensor, for messages
    DType dtype = DType::bf16;  ///< as stored
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t first_row =
        0;  ///< of this weight inside the stored tensor (fused tensors), for messages and f8 scales
    std::variant<FileSource, SyntheticSource> source;
    std::optional<ScaleSource> scales;  ///< of f8, and of nothing else

    std::int64_t row_bytes() const noexcept { return cols * size_of(dtype); }
    std::int64_t bytes() const noexcept { return rows * row_bytes(); }
};

}  // namespace geom
