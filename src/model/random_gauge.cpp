#include "model/random_gauge.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace geom {

namespace {

using Numbers = std::vector<double>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<std::int64_t> random_order(std::int64_t n, RandomNumbers& random) {
    std::vector<std::int64_t> order(at(n));
    std::iota(order.begin(), order.end(), 0);
    for (std::int64_t i = n - 1; i > 0; --i)
        std::swap(order[at(i)], order[at(static_cast<std::int64_t>(random.uniform() * static_cast<double>(i + 1)))]);
    return order;
}

/// Whether a norm that the layer may lack has the same weight in both rows of plane p, in every head it is for.
bool even_weights(const LayerTensors& layer, WeightFamily norm, std::int64_t p) {
    const auto found = layer.of.find(norm);
    if (found == layer.of.end()) return true;
    const std::int64_t half = layer.head_dim / 2;
    for (std::int64_t i = p; i + half < std::ssize(found->second); i += layer.head_dim) {
        if (found->second[at(i)] != found->second[at(i + half)]) return false;
    }
    return true;
}

/// f(old matrix, new one of zeros, its columns), where the layer has such a matrix.
template <class F>
void rebuild_rows(LayerTensors& layer, WeightFamily family, std::int64_t rows, F f) {
    const auto found = layer.of.find(family);
    if (found == layer.of.end()) return;
    const std::int64_t cols = std::ssize(found->second) / rows;
    Numbers out(found->second.size(), 0.0);
    f(std::as_const(found->second), out, cols);
    found->second = std::move(out);
}

void add_row(double factor, const double* from, std::int64_t cols, double* to) {
    for (std::int64_t j = 0; j < cols; ++j) to[j] += factor * from[j];
}

Numbers transposed(const Numbers& matrix, std::int64_t rows) {
    const std::int64_t cols = std::ssize(matrix) / rows;
    Numbers out(matrix.size());
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) out[at(j * rows + i)] = matrix[at(i * cols + j)];
    }
    return out;
}

/// The same of a matrix's columns.
template <class F>
void rebuild_columns(LayerTensors& layer, WeightFamily family, std::int64_t columns, F f) {
    if (!layer.of.contains(family)) return;
    Numbers& matrix = layer.of.at(family);
    matrix = transposed(matrix, std::ssize(matrix) / columns);
    rebuild_rows(layer, family, columns, f);
    matrix = transposed(matrix, columns);
}

/// Head h of the matrix, turned in its planes as head h / group says, becomes head_to(h).
template <class F>
void turn_planes(const FunctionElement& element, LayerTensors& layer, WeightFamily family, std::int64_t heads,
                 F head_to) {
    const std::int64_t hd = layer.head_dim, half = hd / 2, group = heads / layer.kv_heads;
    rebuild_rows(layer, family, heads * hd, [&](const Numbers& from, Numbers& to, std::int64_t cols) {
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t p = 0; p < half; ++p) {
                const std::complex<double> turn = element.turn[at(h / group * half + p)];
                const double* x = from.data() + (h * hd + p) * cols;
                const double* y = x + half * cols;
                double* new_x = to.data() + (head_to(h) * hd + p) * cols;
                double* new_y = new_x + half * cols;
                add_row(turn.real(), x, cols, new_x);
                add_row(-turn.imag(), y, cols, new_x);
                add_row(turn.imag(), x, cols, new_y);
                add_row(turn.real(), y, cols, new_y);
            }
        }
    });
}

/// Block h of n rows becomes block `to(h)`, times the orthogonal matrix h / (blocks / rotations).
struct Rotations {
    const Numbers& matrices;
    std::int64_t n, count;
};
template <class F>
auto rotate_blocks(const Rotations& by, std::int64_t blocks, F block_to) {
    return [&by, blocks, block_to](const Numbers& from, Numbers& to, std::int64_t cols) {
        for (std::int64_t h = 0; h < blocks; ++h) {
            const double* rotation = by.matrices.data() + h / (blocks / by.count) * by.n * by.n;
            for (std::int64_t i = 0; i < by.n; ++i) {
                for (std::int64_t j = 0; j < by.n; ++j) {
                    add_row(rotation[i * by.n + j], from.data() + (h * by.n + j) * cols, cols,
                            to.data() + (block_to(h) * by.n + i) * cols);
                }
            }
        }
    };
}

/// Row i, times factor(i), becomes row `to`[i].
template <class F>
auto move_rows(const std::vector<std::int64_t>& to_row, F factor) {
    return [&to_row, factor](const Numbers& from, Numbers& to, std::int64_t cols) {
        for (std::int64_t i = 0; i < std::ssize(to_row); ++i)
            add_row(factor(i), from.data() + i * cols, cols, to.data() + to_row[at(i)] * cols);
    };
}

}  // namespace

std::vector<double> random_orthogonal(std::int64_t n, RandomNumbers& random) {
    Numbers rows(at(n * n));
    for (std::int64_t i = 0; i < n; ++i) {
        double* row = rows.data() + i * n;
        for (std::int64_t j = 0; j < n; ++j) row[j] = random.normal();
        for (int pass = 0; pass < 2; ++pass) {  // the second takes away what rounding left of the first
            for (std::int64_t k = 0; k < i; ++k) {
                const double* other = rows.data() + k * n;
                add_row(-std::inner_product(row, row + n, other, 0.0), other, n, row);
            }
        }
        const double norm = std::sqrt(std::inner_product(row, row + n, row, 0.0));
        for (std::int64_t j = 0; j < n; ++j) row[j] /= norm;
    }
    return rows;
}

FunctionElement random_function_element(const LayerTensors& layer, RandomNumbers& random) {
    FunctionElement element;
    element.head_to.resize(at(layer.heads));
    const auto key_head_to = random_order(layer.kv_heads, random);
    for (std::int64_t c = 0; c < layer.kv_heads; ++c) {
        const auto inside = random_order(layer.group(), random);
        for (std::int64_t i = 0; i < layer.group(); ++i)
            element.head_to[at(c * layer.group() + i)] = key_head_to[at(c)] * layer.group() + inside[at(i)];
        for (std::int64_t p = 0; p < layer.head_dim / 2; ++p) {
            const bool phase =
                even_weights(layer, WeightFamily::q_norm, p) && even_weights(layer, WeightFamily::k_norm, p);
            const double angle = 6.283185307179586 * random.uniform();
            element.turn.push_back(phase ? std::polar(1.0, angle) : std::cos(angle) < 0 ? -1.0 : 1.0);
        }
        const auto rotation = random_orthogonal(layer.head_dim, random);
        element.rotation.insert(element.rotation.end(), rotation.begin(), rotation.end());
    }
    element.neuron_to = random_order(layer.intermediate, random);
    for (std::int64_t i = 0; i < layer.intermediate; ++i) {
        const double size = std::exp(0.5 * random.normal());
        element.scale.push_back(random.uniform() < 0.5 ? -size : size);
    }
    return element;
}

void apply(const FunctionElement& element, LayerTensors& layer) {
    const std::int64_t heads = layer.heads, kv_heads = layer.kv_heads, hd = layer.head_dim;
    const auto head_to = [&](std::int64_t h) { return element.head_to[at(h)]; };
    const auto key_head_to = [&](std::int64_t c) { return element.head_to[at(c * layer.group())] / layer.group(); };
    for (const WeightFamily q : {WeightFamily::q_proj, WeightFamily::q_bias})
        turn_planes(element, layer, q, heads, head_to);
    for (const WeightFamily k : {WeightFamily::k_proj, WeightFamily::k_bias})
        turn_planes(element, layer, k, kv_heads, key_head_to);
    const Rotations rotations{element.rotation, hd, kv_heads};
    for (const WeightFamily v : {WeightFamily::v_proj, WeightFamily::v_bias})
        rebuild_rows(layer, v, kv_heads * hd, rotate_blocks(rotations, kv_heads, key_head_to));
    rebuild_columns(layer, WeightFamily::o_proj, heads * hd, rotate_blocks(rotations, heads, head_to));
    const std::int64_t neurons = layer.intermediate;
    rebuild_rows(layer, WeightFamily::gate_proj, neurons,
                 move_rows(element.neuron_to, [](std::int64_t) { return 1.0; }));
    rebuild_rows(layer, WeightFamily::up_proj, neurons,
                 move_rows(element.neuron_to, [&](std::int64_t i) { return element.scale[at(i)]; }));
    rebuild_columns(layer, WeightFamily::down_proj, neurons,
                    move_rows(element.neuron_to, [&](std::int64_t i) { return 1.0 / element.scale[at(i)]; }));
}

void apply_random_rotation(LayerTensors& layer, RandomNumbers& random) {
    const std::int64_t heads = layer.heads, kv_heads = layer.kv_heads, hd = layer.head_dim,
                       neurons = layer.intermediate;
    const auto same = [](std::int64_t block) { return block; };
    Numbers of_heads;
    for (std::int64_t c = 0; c < kv_heads; ++c) {
        const auto rotation = random_orthogonal(hd, random);
        of_heads.insert(of_heads.end(), rotation.begin(), rotation.end());
    }
    const Rotations rotations{of_heads, hd, kv_heads};
    rebuild_rows(layer, WeightFamily::q_proj, heads * hd, rotate_blocks(rotations, heads, same));
    for (const WeightFamily family : {WeightFamily::k_proj, WeightFamily::v_proj})
        rebuild_rows(layer, family, kv_heads * hd, rotate_blocks(rotations, kv_heads, same));
    rebuild_columns(layer, WeightFamily::o_proj, heads * hd, rotate_blocks(rotations, heads, same));
    const auto of_neurons = random_orthogonal(neurons, random);
    const Rotations rotation{of_neurons, neurons, 1};
    for (const WeightFamily family : {WeightFamily::gate_proj, WeightFamily::up_proj})
        rebuild_rows(layer, family, neurons, rotate_blocks(rotation, 1, same));
    rebuild_columns(layer, WeightFamily::down_proj, neurons, rotate_blocks(rotation, 1, same));
}

}  // namespace geom
