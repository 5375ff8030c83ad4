// Inner products of the operators of key/value groups, as the definition has them: one element of W_K W_K'^T and of
// W_Q W_Q'^T after the other, f64.
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

/// An operator W_K^T W_Q by its factors.
struct Operator {
    const Block& k;
    const Block& q;
};

/// <g, g'>_F = sum_ab (K K'^T)_ab (Q Q'^T)_ab.
inline double inner_product(const Operator& left, const Operator& right, std::int64_t head_dim, std::int64_t hidden) {
    double sum = 0.0;
    for (std::int64_t a = 0; a < head_dim; ++a) {
        for (std::int64_t b = 0; b < head_dim; ++b) {
            sum += row_product(left.k, a, right.k, b, hidden) * row_product(left.q, a, right.q, b, hidden);
        }
    }
    return sum;
}

/// Head i of one group against head j of another: the inner product of any two layers, [l, l'].
inline std::vector<double> head_pair(const Group& left, std::size_t i, const Group& right, std::size_t j) {
    std::vector<double> dots;
    for (std::size_t l = 0; l < left.k.size(); ++l) {
        for (std::size_t m = 0; m < right.k.size(); ++m) {
            dots.push_back(
                inner_product({left.k[l], left.q[i][l]}, {right.k[m], right.q[j][m]}, left.head_dim, left.hidden));
        }
    }
    return dots;
}

/// gram[head, l, l'].
inline std::vector<double> tile_dots(const Group& group) {
    std::vector<double> gram;
    for (std::size_t head = 0; head < group.q.size(); ++head) {
        const std::vector<double> of_head = head_pair(group, head, group, head);
        gram.insert(gram.end(), of_head.begin(), of_head.end());
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
