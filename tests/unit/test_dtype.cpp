#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/dtype.hpp"

using namespace geom;

namespace {

constexpr DType all[] = {DType::bf16,    DType::f16, DType::f32, DType::f64, DType::f8_e4m3,
                         DType::f8_e5m2, DType::i8,  DType::i16, DType::i32, DType::i64,
                         DType::u8,      DType::u16, DType::u32, DType::u64, DType::boolean};

/// Sign, exponent and fraction as the definition of a small binary format has them.
double decoded(unsigned bits, int exponent_bits, int fraction_bits, int bias) {
    const unsigned fraction = bits & ((1U << fraction_bits) - 1);
    const unsigned exponent = (bits >> fraction_bits) & ((1U << exponent_bits) - 1);
    const bool negative = ((bits >> (fraction_bits + exponent_bits)) & 1U) != 0;
    const double scale = std::ldexp(1.0, -fraction_bits);
    const double magnitude = exponent == 0 ? std::ldexp(fraction * scale, 1 - bias)
                                           : std::ldexp(1.0 + fraction * scale, static_cast<int>(exponent) - bias);
    return negative ? -magnitude : magnitude;
}

TEST(DType, names_lead_back_to_the_type_they_name) {
    for (const DType dtype : all) EXPECT_EQ(dtype_named(name_of(dtype)), dtype) << name_of(dtype);
    EXPECT_EQ(name_of(DType::bf16), "BF16");
    EXPECT_EQ(name_of(DType::f8_e4m3), "F8_E4M3");
    EXPECT_EQ(name_of(DType::boolean), "BOOL");
}

TEST(DType, unknown_names_are_no_type) {
    for (const char* name : {"", "bf16", "BF16 ", "F4", "C64", "F8"}) EXPECT_FALSE(dtype_named(name)) << name;
}

TEST(DType, sizes_and_floatingness_are_those_of_the_format) {
    EXPECT_EQ(size_of(DType::f8_e5m2), 1);
    EXPECT_EQ(size_of(DType::bf16), 2);
    EXPECT_EQ(size_of(DType::f16), 2);
    EXPECT_EQ(size_of(DType::f32), 4);
    EXPECT_EQ(size_of(DType::f64), 8);
    EXPECT_EQ(size_of(DType::boolean), 1);
    EXPECT_EQ(size_of(DType::u64), 8);
    for (const DType dtype : all) EXPECT_EQ(is_floating(dtype), name_of(dtype).find('F') != std::string_view::npos);
}

TEST(DType, every_f16_has_the_value_of_its_definition) {
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
        if ((bits & 0x7c00U) != 0x7c00U) {
            EXPECT_EQ(value, decoded(bits, 5, 10, 15)) << bits;
            EXPECT_EQ(std::signbit(value), (bits & 0x8000U) != 0) << bits;
        } else if ((bits & 0x3ffU) == 0) {
            EXPECT_EQ(value, (bits & 0x8000U) != 0 ? -INFINITY : INFINITY);
        } else {
            EXPECT_TRUE(std::isnan(value)) << bits;
        }
    }
}

TEST(DType, every_f16_survives_the_way_through_f64) {
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const double value = f16_to_f32(static_cast<std::uint16_t>(bits));
        const std::uint16_t back = f64_to_f16(value);
        if (std::isnan(value)) {
            EXPECT_TRUE(std::isnan(f16_to_f32(back))) << bits;
        } else {
            EXPECT_EQ(back, bits);
        }
    }
}

TEST(DType, f64_rounds_to_the_nearest_f16_and_ties_to_the_even_one) {
    for (std::uint16_t bits = 0; bits < 0x7c00; ++bits) {
        const auto above = static_cast<std::uint16_t>(bits + 1);
        const double low = f16_to_f32(bits);
        // Beyond the largest number the next one would have been 65536, which reads as infinity.
        const double high = above == 0x7c00 ? 65536.0 : f16_to_f32(above);
        const double middle = (low + high) / 2;
        const std::uint16_t even = (bits & 1U) == 0 ? bits : above;
        EXPECT_EQ(f64_to_f16(middle), even);
        EXPECT_EQ(f64_to_f16(std::nextafter(middle, 0.0)), bits);
        EXPECT_EQ(f64_to_f16(std::nextafter(middle, INFINITY)), above);
        EXPECT_EQ(f64_to_f16(-middle), even | 0x8000);
    }
}

TEST(DType, f64_far_outside_of_f16_becomes_infinity_or_zero) {
    EXPECT_EQ(f64_to_f16(1e300), 0x7c00);
    EXPECT_EQ(f64_to_f16(-std::numeric_limits<double>::max()), 0xfc00);
    EXPECT_EQ(f64_to_f16(std::numeric_limits<double>::denorm_min()), 0);
    EXPECT_EQ(f64_to_f16(-1e-300), 0x8000);
    EXPECT_EQ(f64_to_f16(-0.0), 0x8000);
}

TEST(DType, every_f8_e4m3_has_the_value_of_its_definition_and_no_infinity) {
    for (unsigned bits = 0; bits < 256; ++bits) {
        const float value = f8_e4m3_to_f32(static_cast<std::uint8_t>(bits));
        if ((bits & 0x7fU) == 0x7f) {
            EXPECT_TRUE(std::isnan(value));
        } else {
            EXPECT_EQ(value, decoded(bits, 4, 3, 7)) << bits;
            EXPECT_EQ(std::signbit(value), (bits & 0x80U) != 0) << bits;
        }
    }
    EXPECT_EQ(f8_e4m3_to_f32(0x7e), 448.0F);
}

TEST(DType, every_f8_e5m2_has_the_value_of_its_definition) {
    for (unsigned bits = 0; bits < 256; ++bits) {
        const float value = f8_e5m2_to_f32(static_cast<std::uint8_t>(bits));
        if ((bits & 0x7cU) != 0x7c) {
            EXPECT_EQ(value, decoded(bits, 5, 2, 15)) << bits;
        } else {
            EXPECT_EQ(std::isinf(value), (bits & 0x3U) == 0) << bits;
        }
    }
    EXPECT_EQ(f8_e5m2_to_f32(0x7b), 57344.0F);
}

TEST(DType, f32_rounds_to_the_nearest_bf16_and_ties_to_the_even_one) {
    EXPECT_EQ(f32_to_bf16(1.0F), 0x3f80);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000U)), 0x3f80);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001U)), 0x3f81);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000U)), 0x3f82);
    EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001U)))));
    for (unsigned bits = 0; bits < 0x7f80; ++bits) {
        EXPECT_EQ(f32_to_bf16(bf16_to_f32(static_cast<std::uint16_t>(bits))), bits);
    }
}

}  // namespace
