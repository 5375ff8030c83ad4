// Which heads of a layer are which of the next, when the next may have them in another order and each key head in
// another basis: the attention part of the gauge `function`.
//
// Read rows p and p + hd/2 of a head's W_Q or W_K, which RoPE turns together, as one complex row. A key head c of layer
// a is brought to key head c' of layer b by
//
//     one phase (or sign) t_p of each plane p     of its W_K and of the W_Q of its query heads
//     one orthogonal R                            of its W_V, and inversely of the W_O of its query heads
//     an order of its query heads                 h -> pi(h)
//
// and is worth, with every head's matrix of unit norm,
//
//     sum_p Re t_p (k_cc'p + sum_h q_h,pi(h),p)  +  <P, V_cc' + sum_h O_h,pi(h)>,     P = R^T
//
// For a given pi the best t and P are known: it is then sum_p |...| and the nuclear norm of V_cc' + sum O. For given t
// and P the best pi is an assignment. The two alternate until pi comes again, from three beginnings: key and value
// alone, heads in their own order, and what no t or P changes (|q_hh'p|, ||O_hh'||_F). The best is kept. Then key heads
// are assigned to key heads by what their best is worth.
#pragma once

#include <complex>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace geom {

/// Inner products of the heads of a with those of b, each head's matrix of unit norm.
struct HeadSimilarities {
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
    std::vector<std::complex<double>> q;  ///< [H, H, hd/2]: sum over columns of a's complex row times b's conjugate
    std::vector<std::complex<double>> k;  ///< [KV, KV, hd/2]
    std::vector<float> o;                 ///< [H hd, H hd]: a's columns of W_O with b's
    std::vector<float> v;                 ///< [KV hd, KV hd]: a's rows of W_V with b's
    std::vector<bool> phases;             ///< [hd/2]: a phase is free, else a sign is

    std::int64_t group() const noexcept { return heads / kv_heads; }
    std::int64_t planes() const noexcept { return head_dim / 2; }
};

struct HeadAlignment {
    std::vector<std::int64_t> head_of;  ///< [H]: b's head that a's head is brought to; groups stay together
    double value = 0.0;                 ///< sum of all inner products: of H heads twice, of KV key heads twice
};

/// Makes orthogonal polar factors P of matrices, one after the other, and <P, M> (kernels/weight_vectors.hpp).
using PolarFactors = std::function<void(std::span<double> matrices, std::span<double> nuclear_norms)>;

/// The best found; the heads' own order is among what was tried. Pairs of key heads are taken `at_once`.
HeadAlignment align_heads(const HeadSimilarities& of, const PolarFactors& polar, std::int64_t at_once);

/// The factor of unit modulus by which the real part of z becomes largest: conj(z)/|z|, or a sign; 1 for 0.
std::complex<double> best_turn(std::complex<double> z, bool phase);

}  // namespace geom
