#include "kernels/cuda/strips.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

using namespace geom;
using namespace geom::cuda;

namespace {

TEST(Strips, cover_every_layer_once_in_order) {
    for (const std::int64_t layers : {1, 2, 3, 28, 64, 126}) {
        for (const std::int64_t head_dim : {8, 64, 128, 256}) {
            for (const Form form : {Form::triangle, Form::square}) {
                std::int64_t next = 0;
                for (const Range rows : strips_of(layers, head_dim, 4096, DType::bf16, form)) {
                    EXPECT_EQ(rows.begin, next);
                    EXPECT_GT(rows.size(), 0);
                    next = rows.end;
                }
                EXPECT_EQ(next, layers);
            }
        }
    }
}

TEST(Strips, of_real_models_fit_the_cache_and_waste_little_below_the_diagonal) {
    struct Model {
        const char* name;
        std::int64_t layers, head_dim, hidden;
    };
    for (const Model& model : {Model{"Qwen3-0.6B", 28, 128, 1024}, Model{"Qwen3-8B", 36, 128, 4096},
                               Model{"Qwen3-32B", 64, 128, 5120}, Model{"Llama-3.1-405B", 126, 128, 16384}}) {
        double computed = 0.0;
        const auto strips = strips_of(model.layers, model.head_dim, model.hidden, DType::bf16, Form::triangle);
        for (const Range rows : strips) {
            computed += static_cast<double>(rows.size() * (model.layers - rows.begin));
            if (rows.size() > 1) {
                EXPECT_LE(rows.size() *
                              layer_strip_bytes(model.layers - rows.begin, model.head_dim, model.hidden, DType::bf16),
                          strip_bytes);
            }
        }
        for (const Range rows : strips_of(model.layers, model.head_dim, model.hidden, DType::bf16, Form::square)) {
            const std::int64_t row = layer_strip_bytes(model.layers, model.head_dim, model.hidden, DType::bf16);
            EXPECT_LE((rows.size() - 1) * row, strip_bytes) << "a strip of one layer may be larger";
        }
        const double needed = 0.5 * static_cast<double>(model.layers * (model.layers + 1));
        EXPECT_LE(computed / needed, 1.15) << model.name;
        fmt::print("{}: {} strips, {:.3f} of the tiles on and above the diagonal\n", model.name, strips.size(),
                   computed / needed);
    }
}

TEST(Chunks, of_bf16_cover_the_hidden_dimension_in_pieces_that_keep_their_digits) {
    for (std::int64_t hidden = 1; hidden < 20000; hidden += 37) {
        const Chunks chunks = chunks_of(hidden, DType::bf16);
        EXPECT_GE(chunks.count * chunks.width, hidden);
        EXPECT_LT((chunks.count - 1) * chunks.width, hidden) << "no chunk is empty";
        EXPECT_LE(chunks.width, promoted_cols + 63);
        EXPECT_EQ(chunks_of(hidden, DType::f32).count, 1);
    }
}

TEST(Chunks, of_real_models_are_alike) {
    struct Expected {
        std::int64_t hidden, count;
    };
    for (const auto& [hidden, count] : {Expected{1024, 1}, Expected{2048, 2}, Expected{3584, 4}, Expected{4096, 4},
                                        Expected{5120, 4}, Expected{6144, 6}, Expected{8192, 8}, Expected{16384, 16}}) {
        const Chunks chunks = chunks_of(hidden, DType::bf16);
        EXPECT_EQ(chunks.count, count) << hidden;
        EXPECT_EQ(chunks.count * chunks.width, hidden);
    }
}

}  // namespace
