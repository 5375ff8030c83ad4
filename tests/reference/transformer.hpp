// The verbs of kernels/transformer.hpp one number at a time, in f64, from the textbook.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace geom::reference {

using Numbers = std::vector<double>;

/// Row-major.
struct Table {
    std::int64_t rows = 0, cols = 0;
    Numbers values = {};

    Table(std::int64_t r, std::int64_t c) : rows(r), cols(c), values(static_cast<std::size_t>(r * c)) {}
    double& at(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * cols + j)]; }
    double at(std::int64_t i, std::int64_t j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
};

/// x w^T
inline Table product(const Table& x, const Table& w) {
    Table out(x.rows, w.rows);
    for (std::int64_t t = 0; t < x.rows; ++t) {
        for (std::int64_t i = 0; i < w.rows; ++i) {
            for (std::int64_t k = 0; k < x.cols; ++k) out.at(t, i) += x.at(t, k) * w.at(i, k);
        }
    }
    return out;
}

inline Table rms_norm(const Table& x, const Table& weight, double eps) {
    Table out = x;
    for (std::int64_t t = 0; t < x.rows; ++t) {
        double squares = 0;
        for (std::int64_t i = 0; i < x.cols; ++i) squares += x.at(t, i) * x.at(t, i);
        for (std::int64_t i = 0; i < x.cols; ++i)
            out.at(t, i) *= weight.at(0, i) / std::sqrt(squares / static_cast<double>(x.cols) + eps);
    }
    return out;
}

/// Dimension i of a head turns with i + head_dim / 2, by (first + t) frequencies[i].
inline Table rotate(const Table& x, std::int64_t head_dim, const Numbers& frequencies, std::int64_t first) {
    Table out = x;
    for (std::int64_t t = 0; t < x.rows; ++t) {
        for (std::int64_t i = 0; i < x.cols; ++i) {
            const std::int64_t head = i / head_dim * head_dim, d = i % head_dim, half = head_dim / 2;
            const double angle = static_cast<double>(first + t) * frequencies[static_cast<std::size_t>(d % half)];
            const double other = d < half ? -x.at(t, head + d + half) : x.at(t, head + d - half);
            out.at(t, i) = x.at(t, i) * std::cos(angle) + other * std::sin(angle);
        }
    }
    return out;
}

/// Query t of q is token first + t; keys and values are of all tokens.
inline Table attend(const Table& q, const Table& k, const Table& v, std::int64_t head_dim, std::int64_t first) {
    Table out(q.rows, q.cols);
    const std::int64_t group = q.cols / k.cols;
    for (std::int64_t t = 0; t < q.rows; ++t) {
        for (std::int64_t head = 0; head < q.cols / head_dim; ++head) {
            const std::int64_t mine = head * head_dim, shared = head / group * head_dim;
            Numbers weights;
            for (std::int64_t key = 0; key <= first + t; ++key) {
                double score = 0;
                for (std::int64_t d = 0; d < head_dim; ++d) score += q.at(t, mine + d) * k.at(key, shared + d);
                weights.push_back(std::exp(score / std::sqrt(static_cast<double>(head_dim))));
            }
            const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
            for (std::int64_t key = 0; key <= first + t; ++key) {
                for (std::int64_t d = 0; d < head_dim; ++d)
                    out.at(t, mine + d) += weights[static_cast<std::size_t>(key)] / sum * v.at(key, shared + d);
            }
        }
    }
    return out;
}

inline double silu(double x) { return x / (1.0 + std::exp(-x)); }

/// The chosen experts of a token, the likeliest first, and all experts' probabilities.
inline std::vector<std::int64_t> route(const Numbers& logits, std::int64_t per_token, Numbers& probabilities) {
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    probabilities.clear();
    for (const double logit : logits) probabilities.push_back(std::exp(logit) / sum);
    std::vector<std::int64_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
        return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    order.resize(static_cast<std::size_t>(per_token));
    return order;
}

/// -ln softmax(logits)[id]
inline double surprise(const Numbers& logits, std::int64_t id) {
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    return std::log(sum) - logits[static_cast<std::size_t>(id)];
}

}  // namespace geom::reference
