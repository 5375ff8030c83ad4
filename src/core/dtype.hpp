// Element types of tensors, by the names safetensors gives them, and exact conversions of single values.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace geom {

enum class DType : std::uint8_t {
    bf16,
    f16,
    f32,
    f64,
    f8_e4m3,
    f8_e5m2,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
    boolean
};

/// Bytes of one element.
std::int64_t size_of(DType dtype) noexcept;

/// The name safetensors uses ("BF16", "F8_E4M3", ...).
std::string_view name_of(DType dtype) noexcept;

/// The inverse of name_of(); nothing for a name that is not known.
std::optional<DType> dtype_named(std::string_view name) noexcept;

/// True for the types a weight may have: bf16, f16, f32, f64 and the two f8.
bool is_floating(DType dtype) noexcept;

/// The type a stored type has in memory: f8 becomes f32, by its scales; all others stay.
DType memory_dtype(DType stored) noexcept;

/// bf16 is the upper half of an f32.
inline float bf16_to_f32(std::uint16_t bits) noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// Round to nearest, ties to even; NaN stays NaN.
inline std::uint16_t f32_to_bf16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

/// IEEE binary16, subnormals and infinities included.
float f16_to_f32(std::uint16_t bits) noexcept;

/// Round to nearest, ties to even, straight from f64 (one rounding).
std::uint16_t f64_to_f16(double value) noexcept;

/// E4M3 without infinities (0x7f and 0xff are NaN), as safetensors' F8_E4M3 and torch.float8_e4m3fn.
float f8_e4m3_to_f32(std::uint8_t bits) noexcept;

/// E5M2: the upper half of an f16.
inline float f8_e5m2_to_f32(std::uint8_t bits) noexcept { return f16_to_f32(static_cast<std::uint16_t>(bits << 8)); }

}  // namespace geom
