// Whole models against golden hidden states: of another implementation, in float32.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "support/error_of.hpp"
#include "support/forward_pass.hpp"

namespace geom {
namespace {

const std::filesystem::path golden = std::filesystem::path(GEOM_TEST_DATA) / "golden";
const char* const models[] = {"qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny", "qwen3-trained"};

template <class T>
std::vector<T> dataset(const std::string& model, const char* name, hid_t type) {
    const hid_t file = H5Fopen((golden / model / "golden.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set);
    std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << model << ": " << name;
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    return values;
}

std::vector<std::int32_t> ids_of(const std::string& model) {
    return dataset<std::int32_t>(model, "residual/token_ids", H5T_NATIVE_INT32);
}

/// The largest difference of a layer's states, as a share of the layer's largest magnitude; of all layers the worst.
double worst_difference(const std::vector<std::vector<float>>& states, const std::vector<float>& expected) {
    double worst = 0.0;
    const std::size_t of_layer = expected.size() / states.size();
    for (std::size_t layer = 0; layer < states.size(); ++layer) {
        EXPECT_EQ(states[layer].size(), of_layer);
        float largest = 0.0F, difference = 0.0F;
        for (std::size_t i = 0; i < of_layer; ++i) {
            const float wanted = expected[layer * of_layer + i], apart = std::fabs(states[layer][i] - wanted);
            largest = std::max(largest, std::fabs(wanted));
            difference = std::isnan(apart) ? INFINITY : std::max(difference, apart);
        }
        worst = std::max(worst, static_cast<double>(difference / largest));
    }
    return worst;
}

class EveryIsa : public ::testing::TestWithParam<Isa> {
protected:
    void SetUp() override {
        if (GetParam() > processor_isa()) GTEST_SKIP() << "this processor has no " << name_of(GetParam());
    }
};

TEST_P(EveryIsa, states_of_every_layer_are_the_golden_ones) {
    const auto backend = make_cpu_backend(2, GetParam());
    for (const std::string model : models) {
        const test::ForwardResult result = test::ForwardPass((golden / model).string(), *backend).run(ids_of(model));
        const auto expected = dataset<float>(model, "residual/hidden_states", H5T_NATIVE_FLOAT);
        const double worst = worst_difference(result.states, expected);
        EXPECT_LE(worst, 2e-5) << model;
        const double entropy = dataset<double>(model, "residual/cross_entropy", H5T_NATIVE_DOUBLE)[0];
        EXPECT_NEAR(result.cross_entropy, entropy, 1e-4) << model;
        RecordProperty(model, std::to_string(worst));
    }
}

// 610 tokens are three chunks, the last not of whole panels.
TEST_P(EveryIsa, a_trained_model_predicts_its_text_as_well_as_it_was_trained_to) {
    std::ifstream file(golden / "qwen3-trained/trained_ids.txt");
    const std::vector<std::int32_t> ids(std::istream_iterator<std::int32_t>(file), {});
    ASSERT_EQ(ids.size(), 610U);
    const auto backend = make_cpu_backend(2, GetParam());
    EXPECT_NEAR(test::ForwardPass((golden / "qwen3-trained").string(), *backend).run(ids).cross_entropy, 4.0959005329,
                1e-4);
}

INSTANTIATE_TEST_SUITE_P(Cpu, EveryIsa,
                         ::testing::Values(Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16),
                         [](const auto& test) {
                             std::string name(name_of(test.param));
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST(LayerForward, bits_do_not_depend_on_threads_chunks_or_strips) {
    const auto one = make_cpu_backend(1, usable_isa()), three = make_cpu_backend(3, usable_isa());
    for (const std::string model : {"qwen3-tiny", "qwen3moe-tiny"}) {
        const std::vector<std::int32_t> ids = ids_of(model);
        const test::ForwardResult whole = test::ForwardPass((golden / model).string(), *one).run(ids);
        const test::ForwardResult parts = test::ForwardPass((golden / model).string(), *three).run(ids, 48);
        EXPECT_EQ(whole.states, parts.states) << model;
        EXPECT_EQ(whole.cross_entropy, parts.cross_entropy) << model;
    }
}

TEST(LayerForward, a_text_of_one_token_predicts_nothing) {
    const auto backend = make_cpu_backend(1, usable_isa());
    const test::ForwardResult result = test::ForwardPass((golden / "llama-tiny").string(), *backend).run({5});
    EXPECT_TRUE(std::isnan(result.cross_entropy));
    EXPECT_EQ(result.states.back().size(), 48U);
    EXPECT_TRUE(std::isfinite(result.states.back()[0]));
}

TEST(LayerForward, a_model_that_is_refused_has_no_pass) {
    const auto backend = make_cpu_backend(1, Isa::portable);
    ModelShape shape;
    shape.forward.sliding_window = 5;
    EXPECT_NO_THROW(LayerForward(*backend, shape, 5));
    EXPECT_TRUE(test::says(test::error_of([&] { LayerForward(*backend, shape, 6); }), "no forward pass",
                           "sliding_window", "--max-tokens 5"));
}

}  // namespace
}  // namespace geom
