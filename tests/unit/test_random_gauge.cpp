// What a random element of the gauge `function` does to a layer, against products of whole matrices.
#include "model/random_gauge.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace geom {
namespace {

using Numbers = std::vector<double>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

LayerTensors random_layer(RandomNumbers& random) {
    LayerTensors layer{4, 2, 6, 10, 7, {}};
    const auto fill = [&](WeightFamily family, std::int64_t size) {
        for (std::int64_t i = 0; i < size; ++i) layer.of[family].push_back(random.normal());
    };
    fill(WeightFamily::q_proj, 24 * 10);
    fill(WeightFamily::k_proj, 12 * 10);
    fill(WeightFamily::v_proj, 12 * 10);
    fill(WeightFamily::o_proj, 10 * 24);
    fill(WeightFamily::q_bias, 24);
    fill(WeightFamily::k_bias, 12);
    fill(WeightFamily::v_bias, 12);
    for (const WeightFamily family : {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj})
        fill(family, 7 * 10);
    return layer;
}

/// Head h of q, k or v, [hd, hidden + 1]: its rows, each with its bias.
Numbers head_of(const LayerTensors& layer, WeightFamily rows, WeightFamily bias, std::int64_t h) {
    Numbers out;
    for (std::int64_t i = h * 6; i < (h + 1) * 6; ++i) {
        for (std::int64_t j = 0; j < 10; ++j) out.push_back(layer.of.at(rows)[at(i * 10 + j)]);
        out.push_back(layer.of.at(bias)[at(i)]);
    }
    return out;
}

/// Its columns of o, as rows, [hd, hidden].
Numbers output_of(const LayerTensors& layer, std::int64_t h) {
    Numbers out;
    for (std::int64_t i = h * 6; i < (h + 1) * 6; ++i) {
        for (std::int64_t j = 0; j < 10; ++j) out.push_back(layer.of.at(WeightFamily::o_proj)[at(j * 24 + i)]);
    }
    return out;
}

/// a^T b of matrices with n rows, where every plane of b (rows p, p + n/2) is first turned by `angle`.
Numbers product(const Numbers& a, const Numbers& b, std::int64_t n, double angle = 0.0) {
    const auto m = std::ssize(a) / n, k = std::ssize(b) / n;
    Numbers out(at(m * k));
    for (std::int64_t r = 0; r < n; ++r) {
        const std::int64_t p = r % (n / 2), other = r < n / 2 ? p + n / 2 : p;
        const double sine = r < n / 2 ? -std::sin(angle) : std::sin(angle);
        for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t j = 0; j < k; ++j)
                out[at(i * k + j)] +=
                    a[at(r * m + i)] * (std::cos(angle) * b[at(r * k + j)] + sine * b[at(other * k + j)]);
        }
    }
    return out;
}

void expect_near(const Numbers& found, const Numbers& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-12) << i;
}

TEST(RandomGauge, scores_of_heads_at_any_distance_and_what_they_write_are_the_same_in_another_order) {
    RandomNumbers random(1);
    const LayerTensors layer = random_layer(random);
    const FunctionElement element = random_function_element(layer, random);
    LayerTensors made = layer;
    apply(element, made);
    using enum WeightFamily;
    for (std::int64_t h = 0; h < 4; ++h) {
        const std::int64_t to = element.head_to[at(h)];
        EXPECT_EQ(to / 2, element.head_to[at(h - h % 2)] / 2);
        for (const double angle : {0.0, 0.7}) {  // RoPE turns q against k by the distance of their tokens
            expect_near(product(head_of(made, k_proj, k_bias, to / 2), head_of(made, q_proj, q_bias, to), 6, angle),
                        product(head_of(layer, k_proj, k_bias, h / 2), head_of(layer, q_proj, q_bias, h), 6, angle));
        }
        expect_near(product(output_of(made, to), head_of(made, v_proj, v_bias, to / 2), 6),
                    product(output_of(layer, h), head_of(layer, v_proj, v_bias, h / 2), 6));
    }
    EXPECT_NE(made.of.at(q_proj), layer.of.at(q_proj));
}

TEST(RandomGauge, neurons_are_the_same_in_another_order) {
    RandomNumbers random(2);
    const LayerTensors layer = random_layer(random);
    const FunctionElement element = random_function_element(layer, random);
    LayerTensors made = layer;
    apply(element, made);
    for (std::int64_t i = 0; i < 7; ++i) {
        const std::int64_t to = element.neuron_to[at(i)];
        for (std::int64_t j = 0; j < 10; ++j) {
            EXPECT_EQ(made.of.at(WeightFamily::gate_proj)[at(to * 10 + j)],
                      layer.of.at(WeightFamily::gate_proj)[at(i * 10 + j)]);
            EXPECT_NEAR(made.of.at(WeightFamily::up_proj)[at(to * 10 + j)] *
                            made.of.at(WeightFamily::down_proj)[at(j * 7 + to)],
                        layer.of.at(WeightFamily::up_proj)[at(i * 10 + j)] *
                            layer.of.at(WeightFamily::down_proj)[at(j * 7 + i)],
                        1e-12);
        }
    }
}

TEST(RandomGauge, planes_have_signs_where_norm_weights_differ_in_them) {
    RandomNumbers random(3);
    LayerTensors layer = random_layer(random);
    layer.of[WeightFamily::q_norm] = {1, 2, 3, 1, 2, 3.5};
    layer.of[WeightFamily::k_norm] = {1, 1, 1, 2, 1, 1};
    int phases = 0;
    for (int trial = 0; trial < 5; ++trial) {
        const auto turn = random_function_element(layer, random).turn;
        for (std::int64_t i = 0; i < std::ssize(turn); ++i) {
            if (i % 3 == 1) {
                phases += std::abs(turn[at(i)].imag()) > 1e-3 ? 1 : 0;
            } else {
                EXPECT_TRUE(turn[at(i)] == 1.0 || turn[at(i)] == -1.0);
            }
        }
    }
    EXPECT_GE(phases, 9);
}

TEST(RandomGauge, orthogonal_matrices_are) {
    RandomNumbers random(4);
    for (const std::int64_t n : {1, 2, 33}) {
        const Numbers rows = random_orthogonal(n, random);
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
                const double* a = rows.data() + i * n;
                EXPECT_NEAR(std::inner_product(a, a + n, rows.data() + j * n, 0.0), i == j ? 1.0 : 0.0, 1e-14);
            }
        }
    }
}

}  // namespace
}  // namespace geom
