// The bodies of lanes.hpp for any vector: what a file gives as Vector says which instructions multiply. Vector has to
// be of an unnamed namespace, as all that is here, and nothing else inline may be called: the linker keeps one copy of
// it for all files, and that could be one with instructions that the processor does not have.
//
// A block of `out`, Vector::rows rows x Vector::panels panels, stays in registers over all terms:
//
//                               registers   loads : products
//   AVX-512   8 rows x 3 panels    24 + 4       11 : 24        bound by products
//   AVX2      6 rows x 1 panel     12 + 3        8 : 12        bound by products
//   baseline  2 rows x 1 panel      8 + 5        6 : 8
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.hpp"

namespace geom::lanes {
namespace {

template <class Vector>
inline typename Vector::Register spread(float value) {
    return typename Vector::Register{} + value;
}

template <class Register>
inline Register larger(Register a, Register b) {
    return a > b ? a : b;
}

/// Within 2 units in the last place (coefficients: S. Moshier's Cephes); 0 below -87.
template <class Vector>
inline typename Vector::Register exp(typename Vector::Register x) {
    using Register = typename Vector::Register;
    using Bits = typename Vector::Bits;
    const auto add = [](Register a, Register b, float c) { return Vector::multiply_add(a, b, spread<Vector>(c)); };
    const Register limit = spread<Vector>(-87.0F), inside = larger(limit, x);  // lets NaN pass
    const Register whole = spread<Vector>(0x1.8p23F);                          // numbers of this size have no fraction
    const Register shifted = inside * 1.44269504F + whole, n = shifted - whole;
    const Register r = inside - n * 0.693359375F - n * -2.12194440e-4F;  // ln 2 in two terms, the first exact times n
    Register p = add(spread<Vector>(1.9875691500e-4F), r, 1.3981999507e-3F);
    p = add(p, r, 8.3334519073e-3F);
    p = add(p, r, 4.1665795894e-2F);
    p = add(p, r, 1.6666665459e-1F);
    p = add(p, r, 5.0000001201e-1F);
    p = Vector::multiply_add(p * r, r, r) + 1.0F;
    const Bits scaled = reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 23);
    return x < limit ? Register{} : reinterpret_cast<Register>(scaled);
}

template <class Vector, int rows, int panels>
inline void multiply_block(const Product& p, const float* a, const float* b, float* out) {
    constexpr int of_panel = static_cast<int>(width) / Vector::width, vectors = panels * of_panel;
    typename Vector::Register sums[rows][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sums[i][v] = Vector::zero();
    }
    for (std::int64_t k = 0; k < p.depth; ++k) {
        typename Vector::Register right[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v)
            right[v] = Vector::load(b + v / of_panel * p.b_stride + k * width + v % of_panel * Vector::width);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const typename Vector::Register left = Vector::spread(a + i * p.a_stride + k);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sums[i][v] = Vector::multiply_add(left, right[v], sums[i][v]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            float* at = out + v / of_panel * p.out_stride + i * width + v % of_panel * Vector::width;
            Vector::store(at, p.first ? sums[i][v] : Vector::add(Vector::load(at), sums[i][v]));
        }
    }
}

/// Rows from `row` on, as many at a time as `rows`, the rest with blocks half as high.
template <class Vector, int rows, int panels>
inline void multiply_rows(const Product& p, std::int64_t row, const float* b, float* out) {
    for (; row + rows <= p.rows; row += rows)
        multiply_block<Vector, rows, panels>(p, p.a + row * p.a_stride, b, out + row * width);
    if constexpr (rows > 1) {
        if (row < p.rows) multiply_rows<Vector, rows / 2, panels>(p, row, b, out);
    }
}

/// Panels from `panel` on; four are two and two, because the products of a single one would wait for each other.
template <class Vector, int panels>
inline void multiply_panels(const Product& p, std::int64_t panel) {
    for (; panel + panels <= p.panels && (panels < 3 || panel + 4 != p.panels); panel += panels)
        multiply_rows<Vector, Vector::rows, panels>(p, 0, p.b + panel * p.b_stride, p.out + panel * p.out_stride);
    if constexpr (panels > 1) {
        if (panel < p.panels) multiply_panels<Vector, panels - 1>(p, panel);
    }
}

template <class Vector>
void multiply(const Product& product) {
    multiply_panels<Vector, Vector::panels>(product, 0);
}

/// Some lanes of a panel, from `lane` on.
template <class Vector>
inline void softmax_lanes(const SoftmaxBlock& block, int lane) {
    using Register = typename Vector::Register;
    using Bits = typename Vector::Bits;
    float* scores = block.scores + lane;
    const Register before = Vector::load(block.largest + lane), none = spread<Vector>(-__builtin_inff());
    Bits query = {};
    for (int i = 0; i < Vector::width; ++i) query[i] = static_cast<std::int32_t>(block.first_query + lane + i);
    Register largest = before;
    for (std::int64_t j = 0; j < block.keys; ++j) {
        Register score = Vector::load(scores + j * width) * block.scale;
        const std::int64_t key = block.first_key + j;
        if (key > block.first_query) score = Bits{} + static_cast<std::int32_t>(key) > query ? none : score;
        largest = larger(score, largest);
        Vector::store(scores + j * width, score);
    }
    Register sum = {};
    for (std::int64_t j = 0; j < block.keys; ++j) {
        const Register part = exp<Vector>(Vector::load(scores + j * width) - largest);
        sum += part;
        Vector::store(scores + j * width, part);
    }
    const Register shrink = exp<Vector>(before - largest);
    Vector::store(block.largest + lane, largest);
    Vector::store(block.sum + lane, Vector::load(block.sum + lane) * shrink + sum);
    Vector::store(block.shrink + lane, shrink);
}

template <class Vector>
void softmax(const SoftmaxBlock& block) {
    for (int lane = 0; lane < width; lane += Vector::width) softmax_lanes<Vector>(block, lane);
}

template <class Vector>
void widen(const std::uint16_t* from, std::int64_t n, float* to) {
    typename Vector::Halves half;
    std::int64_t i = 0;
    for (; i + Vector::width <= n; i += Vector::width) {
        __builtin_memcpy(&half, from + i, sizeof half);
        const typename Vector::Bits bits = __builtin_convertvector(half, typename Vector::Bits) << 16;
        Vector::store(to + i, reinterpret_cast<typename Vector::Register>(bits));
    }
    for (; i < n; ++i) {
        std::uint16_t last;  // need not be aligned
        __builtin_memcpy(&last, from + i, sizeof last);
        to[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(last) << 16);
    }
}

/// The upper halves of two numbers, the first's below.
template <class Vector>
inline void store_pairs(std::uint32_t* to, typename Vector::Bits even, typename Vector::Bits odd) {
    const typename Vector::Bits upper = typename Vector::Bits{} - 0x10000;
    const typename Vector::Bits pairs = (odd & upper) | ((even >> 16) & 0xffff);
    __builtin_memcpy(to, &pairs, sizeof pairs);
}

/// A number less its upper half, whose digits are those of a bf16.
template <class Vector>
inline typename Vector::Register rest(typename Vector::Register x) {
    const typename Vector::Bits upper = typename Vector::Bits{} - 0x10000;
    return x - reinterpret_cast<typename Vector::Register>(reinterpret_cast<typename Vector::Bits>(x) & upper);
}

template <class Vector>
void split(const float* x, std::uint32_t* high, std::uint32_t* middle, std::uint32_t* low) {
    using Bits = typename Vector::Bits;
    for (int lane = 0; lane < width; lane += Vector::width) {
        typename Vector::Register even = Vector::load(x + lane), odd = Vector::load(x + width + lane);
        std::uint32_t* const terms[] = {high, middle, low};
        for (std::uint32_t* term : terms) {
            store_pairs<Vector>(term + lane, reinterpret_cast<Bits>(even), reinterpret_cast<Bits>(odd));
            even = rest<Vector>(even);
            odd = rest<Vector>(odd);
        }
    }
}

template <class Vector>
void scale(float* x, const float* by, std::int64_t n) {
    for (int lane = 0; lane < width; lane += Vector::width) {
        const typename Vector::Register factor = Vector::load(by + lane);
        for (std::int64_t i = lane; i < n * width; i += width) Vector::store(x + i, Vector::load(x + i) * factor);
    }
}

template <class Vector>
void swiglu(float* gate, const float* up, std::int64_t n) {
    for (std::int64_t i = 0; i < n * width; i += Vector::width) {
        const typename Vector::Register x = Vector::load(gate + i), most = spread<Vector>(87.0F), down = -x;
        const typename Vector::Register silu = x / (exp<Vector>(down < most ? down : most) + 1.0F);
        Vector::store(gate + i, silu * Vector::load(up + i));
    }
}

template <class Vector>
void exp_sum(const float* x, std::int64_t n, float* largest, float* sum) {
    for (int lane = 0; lane < width; lane += Vector::width) {
        typename Vector::Register most = Vector::load(x + lane), total = {};
        for (std::int64_t i = lane; i < n * width; i += width) most = larger(Vector::load(x + i), most);
        for (std::int64_t i = lane; i < n * width; i += width) total += exp<Vector>(Vector::load(x + i) - most);
        Vector::store(largest + lane, most);
        Vector::store(sum + lane, total);
    }
}

template <class Vector>
constexpr Kernels kernels_with(const char* path) {
    return {path,          multiply<Vector>, softmax<Vector>, widen<Vector>,
            split<Vector>, scale<Vector>,    swiglu<Vector>,  exp_sum<Vector>};
}

}  // namespace
}  // namespace geom::lanes
