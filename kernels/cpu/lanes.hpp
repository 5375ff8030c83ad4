// Sixteen tokens side by side. Activations are kept in panels of 16 tokens, the numbers of a panel one dimension after
// the other; tokens that fill the last panel up hold anything and are never mixed with others.
//
//   panel 0, tokens 0..15:  x(0, 0) x(1, 0) ... x(15, 0) | x(0, 1) x(1, 1) ... x(15, 1) | ...    x(token, dimension)
//   panel 1, tokens 16..31: ...
//
// Weights are row-major. A weight is spread over a vector and multiplied with 16 tokens, so that no operand of any
// product of a layer has to be transposed, but keys: what one product leaves is what the next one takes. Biases, norms
// over a head, rotations and softmax work across dimensions, lane by lane.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.hpp"

namespace geom::lanes {

inline constexpr std::int64_t width = 16;

/// Terms of a product that are added one after the other. Longer sums are sums of such sums.
inline constexpr std::int64_t run = 256;

/// out[i] (+)= sum_k a[i, k] b[k], each a vector of 16 lanes, in rising order of k, for every panel.
struct Product {
    const float* a = nullptr;  ///< `rows` rows, a_stride apart
    std::int64_t a_stride = 0;
    std::int64_t rows = 0;
    std::int64_t depth = 0;    ///< terms
    const float* b = nullptr;  ///< panels, b_stride apart: b[k] at 16 k
    std::int64_t b_stride = 0;
    std::int64_t panels = 0;
    float* out = nullptr;  ///< panels, out_stride apart: out[i] at 16 i
    std::int64_t out_stride = 0;
    bool first = false;  ///< overwrites
};

/// One block of keys of a softmax over all of them, for a panel of queries. What is kept of the blocks so far: the
/// largest score and the sum of exp(score - largest), 16 of each.
struct SoftmaxBlock {
    float* scores = nullptr;  ///< [keys, 16]; becomes exp(score * scale - largest)
    std::int64_t keys = 0;
    std::int64_t first_key = 0;
    std::int64_t first_query = 0;  ///< position of lane 0; a query sees the keys up to its own position
    float scale = 1.0F;
    float* largest = nullptr;
    float* sum = nullptr;
    float* shrink = nullptr;  ///< exp(largest before - largest), by which earlier blocks' numbers are multiplied
};

/// One instruction set's.
struct Kernels {
    const char* path;  ///< "avx512-f32", ...
    void (*multiply)(const Product& product);
    void (*softmax)(const SoftmaxBlock& block);
    /// n bf16 to f32, exactly.
    void (*widen)(const std::uint16_t* from, std::int64_t n, float* to);
    /// x = high + middle + low exactly, each a bf16: two vectors of x, dimensions 2i and 2i + 1, become one of pairs.
    void (*split)(const float* x, std::uint32_t* high, std::uint32_t* middle, std::uint32_t* low);
    /// x[i] *= by[lane], n vectors.
    void (*scale)(float* x, const float* by, std::int64_t n);
    /// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i], n vectors.
    void (*swiglu)(float* gate, const float* up, std::int64_t n);
    /// largest = max_i x[i], sum = sum_i exp(x[i] - largest), n vectors.
    void (*exp_sum)(const float* x, std::int64_t n, float* largest, float* sum);
};

/// The fastest that `isa` has.
const Kernels& kernels_of(Isa isa);

}  // namespace geom::lanes
