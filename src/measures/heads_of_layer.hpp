// Each head's operator g = W_K^T W_Q (D x D, rank <= hd) on its own. Everything comes from hd x hd and 2hd x 2hd
// matrices in fp64; g is never formed. Written once over DenseBatch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/dense_batch.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom {

/// The weights of one layer: H query blocks and KV key blocks, each hd x D in the backend's memory. Query head h
/// belongs to key head h div (H/KV). Their exponents are what they are multiplied without; the numbers are those of the
/// weights as they are.
struct LayerQK {
    std::int64_t layer = 0;  ///< for messages
    std::span<const MatrixRef> q;
    std::span<const MatrixRef> k;
};

/// What `heads` says of one layer: row-major, shapes as given. Numbers without meaning are NaN.
struct HeadsOfLayer {
    std::int64_t heads = 0;       ///< H
    std::int64_t head_dim = 0;    ///< hd
    std::int64_t hidden = 0;      ///< D
    std::int64_t directions = 0;  ///< k = min(top_k, hd)

    std::vector<double> singular_values;         ///< [H, hd] of g, descending
    std::vector<double> eigvals_re, eigvals_im;  ///< [H, hd] of g, descending magnitude, conjugates + before -
    std::vector<double> sym_eigs;                ///< [H, 2hd] of g + g^T, descending magnitude, + before - where tied
    std::vector<float> right_dirs, left_dirs;    ///< [H, k, D] unit rows; NaN for zero singular values
    std::vector<double> eff_rank;                ///< [H] exp(-sum p ln p), p = s / sum s
    std::vector<double> eff_rank_energy;         ///< [H] the same of p = s^2 / sum s^2
    std::vector<double> stable_rank;             ///< [H] sum s^2 / s_1^2
    std::vector<double> asymmetry;               ///< [H] ||g - g^T|| / ||g||
    std::vector<double> positivity;              ///< [H] sum Re lambda / sum |lambda| over eigvals
    std::vector<double> sym_positive_energy;     ///< [H] sum of lambda^2 > 0 over all lambda^2 of sym_eigs
    std::vector<double> fro_sq;                  ///< [H] sum s^2 = ||g||^2
};

/// Throws Error(input) for shapes that don't fit and Error(numerics) for NaN or infinite weights.
HeadsOfLayer heads_of_layer(DenseBatch& dense, const LayerQK& weights, std::int64_t top_k);

struct HeadsShape {
    std::int64_t heads = 0, kv_heads = 0, head_dim = 0, hidden = 0, top_k = 0;
};

/// Bytes that heads_of_layer takes at most, besides the weights and its numbers.
struct HeadsScratch {
    std::int64_t working = 0;  ///< of the backend's memory, until it is done
    std::int64_t kept = 0;     ///< of the backend's memory, also afterwards
    std::int64_t host = 0;     ///< of the host's memory, until it is done
};
HeadsScratch heads_scratch(const DenseBatch& dense, const HeadsShape& shape);

}  // namespace geom
