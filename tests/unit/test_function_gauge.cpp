// The gauge `function` on layers that were made from others, of checkpoints of every dense family.
#include "measures/function_gauge.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "measures/made_layer.hpp"
#include "measures/neuron_matching.hpp"
#include "support/layer_tensors.hpp"

namespace geom {
namespace {

const std::vector<WeightFamily> attention{WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj,
                                          WeightFamily::o_proj};
const std::vector<WeightFamily> mlp{WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj};

struct Model {
    const char *folder, *family;
};

void PrintTo(const Model& model, std::ostream* out) { *out << model.family << " from " << model.folder; }

FamilyResiduals residuals_of(const Gauge& gauge, const LayerPair& pair, Backend& backend) {
    FamilyResiduals residuals;
    gauge.attention(pair, backend, residuals);
    gauge.mlp(pair, backend, residuals);
    return residuals;
}

class FunctionGaugeOn : public ::testing::TestWithParam<Model> {
protected:
    std::unique_ptr<Backend> backend_ = make_cpu_backend(2, processor_isa());
    Checkpoint checkpoint_ =
        Checkpoint::open(std::string(GEOM_TEST_DATA "/golden/") + GetParam().folder, "", GetParam().family);
    LayerTensors layer_ = test::layer_of(checkpoint_, 1);

    FamilyResiduals between(const LayerTensors& a, const LayerTensors& b, const Gauge& gauge) {
        const MadeLayer first(a), second(b);
        return residuals_of(gauge, pair_of(first, second, gauge.folded), *backend_);
    }
};

TEST_P(FunctionGaugeOn, brings_a_layer_made_by_a_random_element_back_and_no_other_gauge_does) {
    RandomNumbers random(7);
    for (int trial = 0; trial < 3; ++trial) {
        LayerTensors made = layer_;
        apply(random_function_element(layer_, random), made);
        for (const Gauge& gauge : gauges()) {
            FamilyResiduals residuals = between(layer_, made, gauge);
            for (const auto& families : {attention, mlp}) {
                for (const WeightFamily family : families) {
                    if (gauge.name == "function") {
                        EXPECT_LE(residuals.of(family), 1e-6) << name_of(family);
                    } else {
                        EXPECT_GT(residuals.of(family), 0.1) << gauge.name << " " << name_of(family);
                    }
                }
            }
        }
    }
}

TEST_P(FunctionGaugeOn, leaves_what_a_random_rotation_made_to_the_gauge_rotation) {
    RandomNumbers random(8);
    LayerTensors made = layer_;
    apply_random_rotation(made, random);
    for (const Gauge& gauge : gauges()) {
        FamilyResiduals residuals = between(layer_, made, gauge);
        for (const WeightFamily family : {WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::gate_proj,
                                          WeightFamily::up_proj, WeightFamily::down_proj}) {
            if (gauge.name == "rotation") {
                EXPECT_LE(residuals.of(family), 1e-6) << name_of(family);
            } else {
                EXPECT_GT(residuals.of(family), 0.1) << gauge.name << " " << name_of(family);
            }
        }
    }
}

TEST_P(FunctionGaugeOn, has_the_same_bits_on_any_number_of_threads) {
    const LayerTensors next = test::layer_of(checkpoint_, 2);
    FamilyResiduals first = between(layer_, next, function_gauge());
    backend_ = make_cpu_backend(3, processor_isa());
    FamilyResiduals second = between(layer_, next, function_gauge());
    for (const auto& families : {attention, mlp}) {
        for (const WeightFamily family : families) EXPECT_EQ(first.of(family), second.of(family)) << name_of(family);
    }
}

TEST_P(FunctionGaugeOn, leaves_neurons_no_farther_from_the_next_layer_than_they_were) {
    for (std::int64_t l = 0; l + 1 < checkpoint_.config().layers; ++l) {
        const LayerTensors a = test::layer_of(checkpoint_, l), b = test::layer_of(checkpoint_, l + 1);
        const MadeLayer first(a), second(b);
        const LayerPair pair = pair_of(first, second, true);
        FamilyResiduals matched, balanced;
        matched_mlp(pair, *backend_, matched);
        balanced_mlp(pair, *backend_, balanced);
        double tied = 0.0, before = 0.0;
        for (const WeightFamily family : mlp) {
            tied += matched.of(family) * matched.of(family);
            before += balanced.of(family) * balanced.of(family);
        }
        EXPECT_LE(tied, before + 1e-12);
    }
}

INSTANTIATE_TEST_SUITE_P(Models, FunctionGaugeOn,
                         ::testing::Values(Model{"qwen3-tiny", "qwen3"}, Model{"qwen2-tiny", "qwen2"},
                                           Model{"llama-tiny", "llama"}, Model{"llama-tiny", "mistral"},
                                           Model{"qwen3-trained", "qwen3"}),
                         [](const auto& of) {
                             std::string name = std::string(of.param.family) + "_" + of.param.folder;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

// --- what a layer can be ---------------------------------------------------------------------------------------------

/// Normal numbers; norms of ones.
LayerTensors random_layer(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, unsigned seed) {
    LayerTensors layer{heads, kv_heads, head_dim, 24, 20, {}};
    RandomNumbers random(seed);
    const auto fill = [&](WeightFamily family, std::int64_t size) {
        for (std::int64_t i = 0; i < size; ++i) layer.of[family].push_back(random.normal());
    };
    fill(WeightFamily::q_proj, heads * head_dim * layer.hidden);
    fill(WeightFamily::k_proj, kv_heads * head_dim * layer.hidden);
    fill(WeightFamily::v_proj, kv_heads * head_dim * layer.hidden);
    fill(WeightFamily::o_proj, heads * head_dim * layer.hidden);
    for (const WeightFamily family : mlp) fill(family, layer.intermediate * layer.hidden);
    for (const WeightFamily norm : {WeightFamily::input_ln, WeightFamily::post_attn_ln})
        layer.of[norm].assign(static_cast<std::size_t>(layer.hidden), 1.0);
    return layer;
}

class FunctionGauge : public ::testing::Test {
protected:
    std::unique_ptr<Backend> backend_ = make_cpu_backend(1, processor_isa());

    FamilyResiduals between(const LayerTensors& a, const LayerTensors& b, const Gauge& gauge = function_gauge()) {
        const MadeLayer first(a), second(b);
        return residuals_of(gauge, pair_of(first, second, gauge.folded), *backend_);
    }
};

/// W_Q and W_K turned by one angle in every plane.
LayerTensors turned(LayerTensors layer, double angle) {
    FunctionElement element;
    for (std::int64_t h = 0; h < layer.heads; ++h) element.head_to.push_back(h);
    const std::int64_t hd = layer.head_dim;
    element.turn.assign(static_cast<std::size_t>(layer.kv_heads * hd / 2), std::polar(1.0, angle));
    for (std::int64_t i = 0; i < layer.kv_heads * hd * hd; ++i)
        element.rotation.push_back(i % (hd * hd) / hd == i % hd ? 1.0 : 0.0);
    for (std::int64_t i = 0; i < layer.intermediate; ++i) {
        element.neuron_to.push_back(i);
        element.scale.push_back(1.0);
    }
    apply(element, layer);
    return layer;
}

TEST_F(FunctionGauge, turns_planes_freely_but_where_norm_weights_differ_in_them) {
    LayerTensors layer = random_layer(4, 2, 6, 1);
    EXPECT_LE(between(layer, turned(layer, 1.0)).of(WeightFamily::q_proj), 1e-6);
    layer.of[WeightFamily::q_norm] = {1, 2, 3, 1, 2, 3};  // the same in rows p and p + 3
    layer.of[WeightFamily::k_norm] = {2, 2, 2, 2, 2, 2};
    EXPECT_LE(between(layer, turned(layer, 1.0)).of(WeightFamily::q_proj), 1e-6);
    layer.of[WeightFamily::k_norm][4] = 2.5;  // plane 1 has a sign: a turn by 1 is left there, 2 sin(1/2) long
    const double left = between(layer, turned(layer, 1.0)).of(WeightFamily::k_proj);
    EXPECT_GT(left, 0.2);
    EXPECT_LT(left, 2 * std::sin(0.5));
    EXPECT_LE(between(layer, turned(layer, std::acos(-1.0))).of(WeightFamily::k_proj), 1e-6);
}

// With one head the residuals are those of whole matrices, so that their squares can be tied.
TEST_F(FunctionGauge, leaves_a_head_no_farther_from_an_unrelated_one_than_it_was) {
    for (unsigned seed = 1; seed <= 10; ++seed) {
        const LayerTensors a = random_layer(1, 1, 6, seed), b = random_layer(1, 1, 6, seed + 100);
        FamilyResiduals residuals = between(a, b);
        double tied = 0.0, before = 0.0;
        for (const WeightFamily family : attention) {
            tied += residuals.of(family) * residuals.of(family);
            const auto &x = a.of.at(family), &y = b.of.at(family);
            const double product = std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
            before += 2 - 2 * product /
                              std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0) *
                                        std::inner_product(y.begin(), y.end(), y.begin(), 0.0));
        }
        EXPECT_LT(tied, before);
    }
}

TEST_F(FunctionGauge, zero_heads_and_matrices_are_left_out_and_zero_neurons_are_nothing) {
    LayerTensors layer = random_layer(4, 2, 6, 2);
    const auto zero = [&layer](WeightFamily family, std::int64_t begin, std::int64_t end) {
        std::fill(layer.of[family].begin() + begin, layer.of[family].begin() + end, 0.0);
    };
    zero(WeightFamily::q_proj, 0, 6 * 24);        // head 0
    zero(WeightFamily::gate_proj, 0, 20 * 24);    // all
    zero(WeightFamily::up_proj, 3 * 24, 4 * 24);  // neuron 3, whose column of down then counts for nothing
    LayerTensors made = layer;
    RandomNumbers random(3);
    apply(random_function_element(layer, random), made);
    for (std::int64_t i = 0; i < 24; ++i) layer.of[WeightFamily::down_proj][static_cast<std::size_t>(i * 20 + 3)] = 5.0;
    FamilyResiduals residuals = between(layer, made);
    for (const WeightFamily family : attention) EXPECT_LE(residuals.of(family), 1e-6) << name_of(family);
    EXPECT_TRUE(std::isnan(residuals.of(WeightFamily::gate_proj)));
    EXPECT_LE(residuals.of(WeightFamily::up_proj), 1e-6);
    EXPECT_LE(residuals.of(WeightFamily::down_proj), 1e-6);
}

}  // namespace
}  // namespace geom
