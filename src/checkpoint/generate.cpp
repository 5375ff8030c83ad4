#include "checkpoint/generate.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "checkpoint/philox.hpp"
#include "checkpoint/synthetic.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// s of the two elements of a block.
struct PairSums {
    std::int64_t even = 0;
    std::int64_t odd = 0;
};

std::int64_t centred_sum(std::uint32_t a, std::uint32_t b) noexcept {
    const std::int64_t sum = std::int64_t{a & 0xffffU} + (a >> 16) + (b & 0xffffU) + (b >> 16);
    return 2 * sum - 4 * 65535;
}

PairSums sums_of_block(std::uint64_t seed, std::uint64_t tensor_key, std::uint64_t block) noexcept {
    const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
    const auto word = philox4x32({low(block), high(block), low(tensor_key), high(tensor_key)}, {low(seed), high(seed)});
    return {centred_sum(word[0], word[1]), centred_sum(word[2], word[3])};
}

/// Round to nearest, ties to even, straight from the 64-bit pattern: bf16 keeps 7 of the 52 bits of the mantissa.
/// Zero, or a value in bf16's normal range below 2^127 (every synthetic value is).
std::uint16_t f64_to_bf16(double value) noexcept {
    constexpr int dropped = 52 - 7;
    constexpr std::uint64_t bias_difference = 1023 - 127;
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const std::uint64_t magnitude = bits & 0x7fffffffffffffffU;
    if (magnitude == 0) return static_cast<std::uint16_t>(bits >> 48);
    const std::uint64_t half_less_one = (std::uint64_t{1} << (dropped - 1)) - 1;
    const std::uint64_t rounded = (magnitude + half_less_one + ((magnitude >> dropped) & 1)) >> dropped;
    return static_cast<std::uint16_t>((rounded - (bias_difference << 7)) | (bits >> 63 << 15));
}

struct ToBf16 {
    using Bits = std::uint16_t;
    static Bits from(double value) noexcept { return f64_to_bf16(value); }
};
struct ToF16 {
    using Bits = std::uint16_t;
    static Bits from(double value) noexcept { return f64_to_f16(value); }
};
struct ToF32 {
    using Bits = float;
    static Bits from(double value) noexcept { return static_cast<float>(value); }
};
struct ToF64 {
    using Bits = double;
    static Bits from(double value) noexcept { return value; }
};

/// Calls f with the converter of `dtype`.
template <typename F>
void with_converter(DType dtype, F&& f) {
    switch (dtype) {
        case DType::bf16:
            return f(ToBf16{});
        case DType::f16:
            return f(ToF16{});
        case DType::f32:
            return f(ToF32{});
        default:
            return f(ToF64{});
    }
}

template <typename Converter>
void put(double value, std::byte* out) noexcept {
    const typename Converter::Bits bits = Converter::from(value);
    std::memcpy(out, &bits, sizeof bits);
}

/// A source whose second half has factor 0 makes only the first (and the other way round).
template <typename Converter>
void generate_as(const SyntheticSource& source, std::int64_t begin, std::int64_t end, std::byte* out) noexcept {
    const double scale = std::ldexp(1.0, -source.exponent);
    const std::int64_t first = source.first_element + begin, last = source.first_element + end;
    const auto place = [&](std::int64_t i) {
        return out + (i - first) * std::int64_t{sizeof(typename Converter::Bits)};
    };
    for (std::int64_t block = first / 2; 2 * block < last; ++block) {
        const auto counter = static_cast<std::uint64_t>(block);
        PairSums base, own;
        if (source.base_factor != 0) base = sums_of_block(source.seed, source.base_key, counter);
        if (source.own_factor != 0) own = sums_of_block(source.seed, source.own_key, counter);
        const auto value = [&](std::int64_t b, std::int64_t o) {
            return static_cast<double>(source.base_factor * b + source.own_factor * o) * scale;
        };
        if (2 * block >= first) put<Converter>(value(base.even, own.even), place(2 * block));
        if (2 * block + 1 < last) put<Converter>(value(base.odd, own.odd), place(2 * block + 1));
    }
}

void fill_constant(double value, DType dtype, std::int64_t count, std::byte* out) {
    with_converter(dtype, [&](auto converter) {
        using Converter = decltype(converter);
        for (std::int64_t i = 0; i < count; ++i)
            put<Converter>(value, out + i * std::int64_t{sizeof(typename Converter::Bits)});
    });
}

void check_request(const SyntheticSource& source, DType dtype, std::int64_t begin, std::int64_t end) {
    if (dtype != DType::bf16 && dtype != DType::f16 && dtype != DType::f32 && dtype != DType::f64)
        throw Error(ExitCode::internal, fmt::format("synthetic weights cannot be {}", name_of(dtype)));
    const auto fits = [](std::int64_t factor) { return factor >= 0 && factor <= max_synthetic_factor; };
    if (source.first_element < 0 || begin < 0 || begin > end || !fits(source.base_factor) || !fits(source.own_factor) ||
        source.exponent < 1 || source.exponent > 100)
        throw Error(
            ExitCode::internal,
            fmt::format("malformed synthetic source: elements {} + [{}, {}), factors {} and {}, exponent {}",
                        source.first_element, begin, end, source.base_factor, source.own_factor, source.exponent));
}

}  // namespace

void generate_portable(const SyntheticSource& source, DType dtype, std::int64_t begin, std::int64_t end,
                       std::byte* out) noexcept {
    with_converter(dtype, [&](auto converter) { generate_as<decltype(converter)>(source, begin, end, out); });
}

//   begin odd │        whole steps of 16        │ rest
//   ──────────┼──────────┼───────────┼──────────┼──────
//   portable  │           wide                  │ portable
void generate(const SyntheticSource& source, DType dtype, std::int64_t begin, std::int64_t end, std::byte* out) {
    if (begin == end) return;
    if (source.is_constant) return fill_constant(source.constant, dtype, end - begin, out);
    check_request(source, dtype, begin, end);

    static const std::span<const WideGenerator> wide = wide_generators();
    std::int64_t middle = begin, middle_end = begin;
    if (!wide.empty()) {
        middle = std::min(end, begin + (source.first_element + begin) % 2);
        const std::int64_t steps = (end - middle) / wide_step;
        middle_end = middle + steps * wide_step;
        wide.front()(source, dtype, (source.first_element + middle) / 2, steps,
                     out + (middle - begin) * size_of(dtype));
    }
    generate_portable(source, dtype, begin, middle, out);
    generate_portable(source, dtype, middle_end, end, out + (middle_end - begin) * size_of(dtype));
}

}  // namespace geom
