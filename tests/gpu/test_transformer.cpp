// The forward pass on a GPU against golden hidden states, and against the processor's cross entropy.
#include <gtest/gtest.h>

#include "kernels/gpu.hpp"
#include "support/golden_states.hpp"

namespace geom {
namespace {

constexpr std::size_t few_tokens = 24;  // an emulated GPU is slow

class ForwardOnGpu : public ::testing::TestWithParam<ForwardProducts> {
protected:
    void SetUp() override {
        if (visible_gpus().gpus.empty()) GTEST_SKIP() << "no GPU";
        backend_ = make_cuda_backend(0, 2);
        backend_->transformer().use(GetParam());
    }

    std::unique_ptr<Backend> backend_;
};

// Chunks of 16 and 8 tokens, so that queries meet keys of chunks before.
TEST_P(ForwardOnGpu, states_of_every_layer_are_the_golden_ones) {
    const auto cpu = make_cpu_backend(1, usable_isa());
    for (const std::string model : test::golden_models) {
        std::vector<std::int32_t> ids = test::golden_ids(model);
        ids.resize(few_tokens);
        const std::string folder = (test::golden / model).string();
        const test::ForwardResult result = test::ForwardPass(folder, *backend_).run(ids, 16);
        EXPECT_LE(test::worst_difference(result.states, test::golden_states(model)), 2e-5) << model;
        EXPECT_NEAR(result.cross_entropy, test::ForwardPass(folder, *cpu).run(ids).cross_entropy, 1e-4) << model;
    }
}

TEST_P(ForwardOnGpu, the_path_says_what_multiplies) {
    const bool fastest = GetParam() == ForwardProducts::fastest;
    EXPECT_EQ(backend_->transformer().path(DType::bf16), fastest ? "cublas-bf16x3" : "cublas-f32");
    EXPECT_EQ(backend_->transformer().path(DType::f16), "cublas-f32");
}

INSTANTIATE_TEST_SUITE_P(Cuda, ForwardOnGpu, ::testing::Values(ForwardProducts::fastest, ForwardProducts::f32),
                         [](const auto& test) { return test.param == ForwardProducts::fastest ? "fastest" : "f32"; });

}  // namespace
}  // namespace geom
