#include "kernels/head_products.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "kernels/check_arguments.hpp"

namespace geom {

namespace {

bool is_kept(DType dtype) { return dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64; }

/// Whether every number of `stored` is one of `kept`.
bool fits_into(DType stored, DType kept) {
    switch (stored) {
        case DType::bf16:
            return true;
        case DType::f16:
        case DType::f32:
            return kept != DType::bf16;
        case DType::f64:
            return kept == DType::f64;
        default:
            return false;
    }
}

void check_format(const HeadBlockFormat& format, const char* verb) {
    require(format.head_dim > 0 && format.hidden > 0 && format.bytes > 0 && is_kept(format.dtype), verb,
            "a format that no backend gave");
}

/// dots[l, l'] of head i of the left group and j of the right one, as of the blocks before they were scaled.
void scale_back(const KvGroupBlocks& left, std::int64_t i, const KvGroupBlocks& right, std::int64_t j, double* dots) {
    for (std::int64_t l = 0; l < left.layers; ++l) {
        for (std::int64_t m = 0; m < right.layers; ++m, ++dots) {
            const std::int32_t exponent = left.exponent(i, l) + right.exponent(j, m);
            if (exponent != 0) *dots = std::ldexp(*dots, exponent);
        }
    }
}

bool has_exponents(const KvGroupBlocks& group) { return group.k_exponents != nullptr || group.q_exponents != nullptr; }

}  // namespace

HeadBlockFormat HeadProducts::format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const {
    require(head_dim > 0 && hidden > 0, "format", "heads without rows or columns");
    require(fits_into(dtype, DType::f64), "format", "head blocks of this type cannot be multiplied");
    return do_format(dtype, head_dim, hidden);
}

void HeadProducts::pack(std::span<const MatrixRef> blocks, const HeadBlockFormat& format,
                        std::span<std::byte* const> out, const MatrixRef& columns) {
    check_format(format, "pack");
    if (columns.data != nullptr) {
        require(columns.rows == 1 && columns.cols == format.hidden && columns.exponent == 0, "pack",
                "columns' weights are a row as long as the blocks'");
        require(format.dtype != DType::bf16 && fits_into(columns.dtype, format.dtype), "pack",
                "folded blocks are f32 or f64, and as wide as the columns' weights");
    }
    require(blocks.size() == out.size(), "pack", "as many places as blocks are needed");
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const MatrixRef& block = blocks[i];
        if (block.rows != format.head_dim || block.cols != format.hidden || !fits_into(block.dtype, format.dtype)) {
            throw Error(ExitCode::internal, fmt::format("pack: a block of {} x {} {}, where {} x {} that fit {} are "
                                                        "multiplied",
                                                        block.rows, block.cols, name_of(block.dtype), format.head_dim,
                                                        format.hidden, name_of(format.dtype)));
        }
        require(block.data != nullptr && out[i] != nullptr, "pack", "a block without memory");
        require(std::abs(block.exponent) <= 1000, "pack", "an exponent that f64 does not have");
    }
    do_pack(blocks, format, out, columns);
}

void HeadProducts::tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) {
    check_format(format, "tile_dots");
    require(group.layers >= 0 && group.heads >= 0, "tile_dots", "a negative number of layers or heads");
    require(std::ssize(out) == group.heads * group.layers * group.layers, "tile_dots",
            "the results are heads x layers x layers");
    if (out.empty()) return;
    require(group.k != nullptr && group.q != nullptr, "tile_dots", "a group without memory");
    do_tile_dots(group, format, out);
    for (std::int64_t i = 0; has_exponents(group) && i < group.heads; ++i)
        scale_back(group, i, group, i, out.data() + i * group.layers * group.layers);
}

std::int64_t place_in(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format) {
    if (left.k != right.k) return -1;
    const std::int64_t head_bytes = right.layers * format.bytes, begin = left.q - right.q;
    require(left.layers == right.layers && begin >= 0 && begin % head_bytes == 0 &&
                begin / head_bytes + left.heads <= right.heads,
            "place_in", "heads of one group that do not lie in a row");
    return begin / head_bytes;
}

void HeadProducts::cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, const HeadBlockFormat& format,
                              std::span<double> out) {
    check_format(format, "cross_dots");
    require(left.layers == right.layers && left.layers >= 0 && left.heads >= 0 && right.heads >= 0, "cross_dots",
            "groups of different layers, or a negative number of them");
    require(std::ssize(out) == left.heads * right.heads * left.layers * left.layers, "cross_dots",
            "the results are left heads x right heads x layers x layers");
    if (out.empty()) return;
    for (const KvGroupBlocks* group : {&left, &right})
        require(group->k != nullptr && group->q != nullptr, "cross_dots", "a group without memory");
    (void)place_in(left, right, format);
    do_cross_dots(left, right, format, out);
    if (!has_exponents(left) && !has_exponents(right)) return;
    for (std::int64_t i = 0; i < left.heads; ++i) {
        for (std::int64_t j = 0; j < right.heads; ++j)
            scale_back(left, i, right, j, out.data() + (i * right.heads + j) * left.layers * left.layers);
    }
}

std::int64_t HeadProducts::cross_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                               std::int64_t left_heads, std::int64_t right_heads) const {
    check_format(format, "cross_scratch_bytes");
    return do_cross_scratch_bytes(format, layers, left_heads, right_heads);
}

std::int64_t HeadProducts::scratch_bytes(const HeadBlockFormat& format, std::int64_t layers, std::int64_t heads) const {
    check_format(format, "scratch_bytes");
    return do_scratch_bytes(format, layers, heads);
}

}  // namespace geom
