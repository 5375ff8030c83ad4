// gram of a key/value group, as the definition has it: one element of W_K W_K'^T and of W_Q W_Q'^T after the other,
// f64.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace geom::reference {

/// A head's hd x D block, row-major.
using Block = std::vector<double>;

/// Blocks of a group: k[layer], q[head][layer].
struct Group {
    std::int64_t head_dim = 0;
    std::int64_t hidden = 0;
    std::vector<Block> k;
    std::vector<std::vector<Block>> q;
};

/// The inner product of row a of one block and row b of another.
inline double row_product(const Block& left, std::int64_t a, const Block& right, std::int64_t b, std::int64_t hidden) {
    double sum = 0.0;
    for (std::int64_t j = 0; j < hidden; ++j) {
        sum += left[static_cast<std::size_t>(a * hidden + j)] * right[static_cast<std::size_t>(b * hidden + j)];
    }
    return sum;
}

/// gram[head, l, l'] = sum_ab (K_l K_l'^T)_ab (Q_l Q_l'^T)_ab.
inline std::vector<double> tile_dots(const Group& group) {
    const std::size_t layers = group.k.size();
    std::vector<double> gram;
    for (const auto& q : group.q) {
        for (std::size_t l = 0; l < layers; ++l) {
            for (std::size_t m = 0; m < layers; ++m) {
                double sum = 0.0;
                for (std::int64_t a = 0; a < group.head_dim; ++a) {
                    for (std::int64_t b = 0; b < group.head_dim; ++b) {
                        sum += row_product(group.k[l], a, group.k[m], b, group.hidden) *
                               row_product(q[l], a, q[m], b, group.hidden);
                    }
                }
                gram.push_back(sum);
            }
        }
    }
    return gram;
}

/// sum_i |k_i| |q_i| over the rows of one head: the size that gram's errors are measured against.
inline double operator_size(const Group& group, std::size_t head, std::size_t layer) {
    double sum = 0.0;
    for (std::int64_t a = 0; a < group.head_dim; ++a) {
        const Block &k = group.k[layer], &q = group.q[head][layer];
        sum += std::sqrt(row_product(k, a, k, a, group.hidden) * row_product(q, a, q, a, group.hidden));
    }
    return sum;
}

}  // namespace geom::reference
