// The order of copies and verbs. On the emulator, which runs everything as late as it may, a wait that is missing
// shows.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/gpu.hpp"
#include "support/backend_memory.hpp"

namespace geom::test {
namespace {

TEST(InputBuffers, bring_every_layer_to_the_verbs_that_were_issued_for_it) {
    if (visible_gpus().gpus.empty()) GTEST_SKIP() << "no GPU: " << visible_gpus().why_none;
    constexpr std::int64_t layers = 9, rows = 4, cols = 1000, bytes = rows * cols * 4;
    const auto backend = make_cuda_backend(0, 1);
    const HeadBlockFormat format = backend->head_products().format(DType::f64, rows, cols);
    const std::unique_ptr<InputBuffer> buffers[] = {backend->input_buffer(bytes), backend->input_buffer(bytes)};
    const Buffer packed = backend->allocate(layers * format.bytes);
    for (std::int64_t layer = 0; layer < layers; ++layer) {  // as LayerStream and its caller take turns
        InputBuffer& buffer = *buffers[layer % 2];
        buffer.wait_sent();
        const std::vector<float> values(rows * cols, static_cast<float>(layer + 1));
        std::memcpy(buffer.host(), values.data(), bytes);
        buffer.send(bytes);
        buffer.receive();
        const std::vector<MatrixRef> blocks = {{buffer.data(), DType::f32, rows, cols}};
        const std::vector<std::byte*> out = {packed.data() + layer * format.bytes};
        backend->head_products().pack(blocks, format, out);
        buffer.release();
    }
    const std::vector<std::byte> all = from_backend(*backend, packed.data(), packed.size());
    for (std::int64_t i = 0; i < layers * rows * cols; ++i) {
        double value = 0;
        std::memcpy(&value, all.data() + i * 8, 8);
        ASSERT_EQ(value, static_cast<double>(i / (rows * cols) + 1)) << "element " << i;
    }
}

TEST(InputBuffers, of_no_bytes_are_sent_as_any_other) {
    if (visible_gpus().gpus.empty()) GTEST_SKIP() << "no GPU: " << visible_gpus().why_none;
    const auto backend = make_cuda_backend(0, 1);
    const auto buffer = backend->input_buffer(0);
    buffer->wait_sent();
    buffer->send(0);
    buffer->receive();
    buffer->release();
    backend->queue().copy(nullptr, nullptr, 0);
    backend->queue().wait();
}

}  // namespace
}  // namespace geom::test
