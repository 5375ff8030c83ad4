// Whole models against golden hidden states: of another implementation, in float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "support/error_of.hpp"
#include "support/golden_states.hpp"

namespace geom {
namespace {

using test::golden;

class EveryIsa : public ::testing::TestWithParam<Isa> {
protected:
    void SetUp() override {
        if (GetParam() > processor_isa()) GTEST_SKIP() << "this processor has no " << name_of(GetParam());
    }
};

TEST_P(EveryIsa, states_of_every_layer_are_the_golden_ones) {
    const auto backend = make_cpu_backend(2, GetParam());
    for (const std::string model : test::golden_models) {
        const test::ForwardResult result =
            test::ForwardPass((golden / model).string(), *backend).run(test::golden_ids(model));
        const double worst = test::worst_difference(result.states, test::golden_states(model));
        EXPECT_LE(worst, 2e-5) << model;
        EXPECT_NEAR(result.cross_entropy, test::golden_cross_entropy(model), 1e-4) << model;
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
        const std::vector<std::int32_t> ids = test::golden_ids(model);
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
