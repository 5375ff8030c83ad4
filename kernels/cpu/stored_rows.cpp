#include "kernels/cpu/stored_rows.hpp"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <span>

#include "core/error.hpp"

namespace geom::cpu {

namespace {

/// Exact, without branches: the exponent is moved by a product, so subnormals come out right.
float f16_widened(std::uint16_t bits) {
    const std::uint32_t magnitude = std::uint32_t{bits & 0x7fffU} << 13;
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p112F;
    const std::uint32_t special = magnitude >= 0x0f800000U ? 0x7f800000U : 0U;  // infinity and NaN
    const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

/// Where rows go, `stride` elements apart.
template <class Element>
struct Target {
    Element* at;
    std::int64_t stride;
};

template <class Stored, class Element, class Widen>
void widen_as(const MatrixRef& w, Range columns, Target<Element> to, Widen widen) {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(Stored));
    for (std::int64_t row = 0; row < w.rows; ++row, to.at += to.stride) {
        const std::byte* from = w.data + (row * w.cols + columns.begin) * bytes;
        for (std::int64_t i = 0; i < columns.size(); ++i) {
            Stored value;
            std::memcpy(&value, from + i * bytes, sizeof(Stored));
            to.at[i] = static_cast<Element>(widen(value));
        }
    }
}

template <class Element>
void widen_into(const MatrixRef& w, Range columns, Target<Element> to) {
    switch (w.dtype) {
        case DType::bf16:
            return widen_as<std::uint16_t>(w, columns, to, bf16_to_f32);
        case DType::f16:
            return widen_as<std::uint16_t>(w, columns, to, f16_widened);
        case DType::f32:
            return widen_as<float>(w, columns, to, [](float value) { return value; });
        case DType::f64:
            return widen_as<double>(w, columns, to, [](double value) { return value; });
        default:
            throw Error(ExitCode::internal, fmt::format("no products of {} weights", name_of(w.dtype)));
    }
}

template <class T, class Narrow>
void narrow_as(std::span<const double> from, std::byte* to, Narrow narrow) {
    for (const double value : from) {
        const T narrowed = narrow(value);
        std::memcpy(to, &narrowed, sizeof(T));
        to += sizeof(T);
    }
}

}  // namespace

void widen(const MatrixRef& w, Range columns, double* to) {
    widen_into<double>(w, columns, {to, columns.size()});
    if (w.exponent == 0) return;
    const double factor = std::ldexp(1.0, -w.exponent);
    for (std::int64_t i = 0; i < w.rows * columns.size(); ++i) to[i] *= factor;
}

std::vector<std::byte> rescaled(const MatrixRef& w, std::span<const double> columns, DType dtype) {
    std::vector<std::byte> out(static_cast<std::size_t>(w.rows * w.cols * size_of(dtype)));
    std::vector<double> widened(static_cast<std::size_t>(w.cols));
    std::byte* to = out.data();
    MatrixRef row = w;
    row.rows = 1;
    for (std::int64_t i = 0; i < w.rows; ++i, row.data += w.cols * size_of(w.dtype), to += w.cols * size_of(dtype)) {
        widen(row, {0, w.cols}, widened.data());
        for (std::size_t j = 0; j < columns.size(); ++j) widened[j] *= columns[j];
        if (dtype == DType::bf16) {
            narrow_as<std::uint16_t>(widened, to, [](double x) { return f32_to_bf16(static_cast<float>(x)); });
        } else if (dtype == DType::f32) {
            narrow_as<float>(widened, to, [](double x) { return static_cast<float>(x); });
        } else {
            narrow_as<double>(widened, to, [](double x) { return x; });
        }
    }
    return out;
}

void to_f32(const MatrixRef& w, Range columns, float* to, std::int64_t stride) {
    widen_into<float>(w, columns, {to, stride});
}

}  // namespace geom::cpu
