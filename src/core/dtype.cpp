#include "core/dtype.hpp"

#include <array>

namespace geom {
namespace {

struct Entry {
    std::string_view name;
    std::int64_t bytes;
    bool floating;
};

// In the order of DType.
constexpr std::array<Entry, 15> entries = {{
    {"BF16", 2, true},
    {"F16", 2, true},
    {"F32", 4, true},
    {"F64", 8, true},
    {"F8_E4M3", 1, true},
    {"F8_E5M2", 1, true},
    {"I8", 1, false},
    {"I16", 2, false},
    {"I32", 4, false},
    {"I64", 8, false},
    {"U8", 1, false},
    {"U16", 2, false},
    {"U32", 4, false},
    {"U64", 8, false},
    {"BOOL", 1, false},
}};
static_assert(entries.size() == static_cast<std::size_t>(DType::boolean) + 1);

const Entry& entry(DType dtype) noexcept { return entries[static_cast<std::size_t>(dtype)]; }

/// `value` / 2^shift, to the nearest integer, ties to even; 0 < shift < 64.
std::uint64_t shift_right_to_nearest(std::uint64_t value, int shift) noexcept {
    const std::uint64_t below_half = (std::uint64_t{1} << (shift - 1)) - 1;
    return (value + below_half + ((value >> shift) & 1U)) >> shift;
}

}  // namespace

std::int64_t size_of(DType dtype) noexcept { return entry(dtype).bytes; }

std::string_view name_of(DType dtype) noexcept { return entry(dtype).name; }

bool is_floating(DType dtype) noexcept { return entry(dtype).floating; }

std::optional<DType> dtype_named(std::string_view name) noexcept {
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (entries[i].name == name) return static_cast<DType>(i);
    }
    return std::nullopt;
}

DType memory_dtype(DType stored) noexcept {
    return stored == DType::f8_e4m3 || stored == DType::f8_e5m2 ? DType::f32 : stored;
}

float f16_to_f32(std::uint16_t bits) noexcept {
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fU;
    const std::uint32_t fraction = bits & 0x3ffU;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13));
    if (exponent == 0) {
        const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
        return sign != 0 ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | ((exponent + 127 - 15) << 23) | (fraction << 13));
}

std::uint16_t f64_to_f16(double value) noexcept {
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const auto sign = static_cast<std::uint64_t>((bits >> 48) & 0x8000U);
    const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
    const int exponent = static_cast<int>((bits >> 52) & 0x7ffU) - 1023;
    if (exponent == 1024 && fraction != 0) return static_cast<std::uint16_t>(sign | 0x7e00U | (fraction >> 42));
    if (exponent > 15) return static_cast<std::uint16_t>(sign | 0x7c00U);
    if (exponent >= -14) {
        // A carry out of the fraction raises the exponent, up to infinity, which is what rounding asks for.
        const auto biased = static_cast<std::uint64_t>(exponent + 15) << 10;
        return static_cast<std::uint16_t>(sign | (biased + shift_right_to_nearest(fraction, 42)));
    }
    // Subnormal: a multiple of 2^-24; below 2^-25 it is zero.
    const int shift = 28 - exponent;
    if (shift >= 54) return static_cast<std::uint16_t>(sign);
    return static_cast<std::uint16_t>(sign | shift_right_to_nearest(fraction | (std::uint64_t{1} << 52), shift));
}

float f8_e4m3_to_f32(std::uint8_t bits) noexcept {
    const std::uint32_t sign = (bits & 0x80U) << 24;
    const std::uint32_t exponent = (bits >> 3) & 0xfU;
    const std::uint32_t fraction = bits & 0x7U;
    if (exponent == 0xf && fraction == 0x7) return std::bit_cast<float>(sign | 0x7fc00000U);
    if (exponent == 0) {
        const float magnitude = static_cast<float>(fraction) * 0x1p-9F;
        return sign != 0 ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | ((exponent + 127 - 7) << 23) | (fraction << 20));
}

}  // namespace geom
