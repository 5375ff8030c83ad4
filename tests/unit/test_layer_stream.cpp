#include "stream/layer_stream.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "support/error_of.hpp"
#include "support/model_folder.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
using geom::test::TemporaryFolder;
using Family = WeightFamily;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

namespace {

const auto backend = geom::make_cpu_backend(1, geom::Isa::portable);

const fs::path golden = fs::path(GEOM_TEST_DATA) / "golden";
constexpr Family dense[] = {Family::q_proj,    Family::k_proj,  Family::v_proj,    Family::o_proj,
                            Family::gate_proj, Family::up_proj, Family::down_proj, Family::input_ln};

Checkpoint opened(const std::string& model) { return Checkpoint::open(model, "", ""); }

std::vector<LayerRequest> all_layers(const Checkpoint& checkpoint) {
    std::vector<LayerRequest> requests;
    for (std::int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
        requests.push_back({layer, {}});
        for (const Family family : dense) requests.back().weights.push_back({family, {}});
    }
    return requests;
}

std::int64_t bytes_of(const Checkpoint& checkpoint, const LayerRequest& request) {
    std::int64_t bytes = 0;
    for (const WeightRequest& wanted : request.weights)
        bytes += checkpoint.weight(wanted.family, request.layer).bytes();
    return bytes;
}

std::string bytes_of(const MatrixRef& matrix) {
    return {reinterpret_cast<const char*>(matrix.data),
            static_cast<std::size_t>(matrix.rows * matrix.cols * size_of(matrix.dtype))};
}

// A matrix of a checkpoint in files is there as stored.
void expect_as_stored(const Checkpoint& checkpoint, const LayerWeights& weights, Family family,
                      std::int64_t expert = -1) {
    const Weight weight = checkpoint.weight(family, weights.layer(), expert);
    ASSERT_TRUE(weights.has(family, expert)) << weight.tensor;
    const MatrixRef matrix = weights.matrix(family, expert);
    EXPECT_EQ(matrix.rows, weight.rows);
    EXPECT_EQ(matrix.cols, weight.cols);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(matrix.data) % 64, 0U) << weight.tensor;
    EXPECT_EQ(bytes_of(matrix), test::stored_bytes(checkpoint, weight)) << weight.tensor;
}

// Every matrix of a layer.
void expect_whole(const Checkpoint& checkpoint, const LayerWeights& weights) {
    for (const Family family : dense) expect_as_stored(checkpoint, weights, family);
}

// Whether `reader` comes to `bytes` within ten seconds.
std::vector<StreamSource> from(const Checkpoint& checkpoint, Reader& reader) { return {{&checkpoint, &reader}}; }

bool comes_to(const Reader& reader, std::int64_t bytes) {
    for (const auto start = Clock::now(); reader.bytes_read() != bytes;) {
        if (Clock::now() - start > std::chrono::seconds(10)) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

TEST(LayerStream, brings_every_layer_in_order_as_stored) {
    for (const char* model : {"qwen3-tiny", "qwen2-tiny", "llama-tiny"}) {
        const Checkpoint checkpoint = opened((golden / model).string());
        Reader reader(checkpoint.files(), 2);
        LayerStream stream(from(checkpoint, reader), *backend, all_layers(checkpoint), 2, {});
        for (std::int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
            const LayerWeights* weights = stream.next();
            ASSERT_NE(weights, nullptr);
            EXPECT_EQ(weights->layer(), layer);
            EXPECT_FALSE(weights->has(Family::router));
            expect_whole(checkpoint, *weights);
        }
        EXPECT_EQ(stream.next(), nullptr);
        EXPECT_EQ(stream.next(), nullptr);
    }
}

TEST(LayerStream, brings_the_rows_that_were_asked_for) {
    const Checkpoint checkpoint = opened((golden / "qwen3-tiny").string());
    Reader reader(checkpoint.files(), 2);
    LayerStream stream(from(checkpoint, reader), *backend,
                       {{2, {{Family::q_proj, {{16, 48}, {112, 128}}}, {Family::k_proj, {{0, 16}}}}}}, 2, {});
    const LayerWeights* weights = stream.next();
    const Weight q = checkpoint.weight(Family::q_proj, 2);
    const std::string stored = test::stored_bytes(checkpoint, q);
    for (const Range rows : {Range{16, 48}, Range{16, 32}, Range{20, 21}, Range{112, 128}, Range{120, 128}}) {
        EXPECT_EQ(bytes_of(weights->rows(Family::q_proj, rows)),
                  stored.substr(static_cast<std::size_t>(rows.begin * q.row_bytes()),
                                static_cast<std::size_t>(rows.size() * q.row_bytes())));
    }
    for (const Range rows : {Range{0, 16}, Range{40, 49}, Range{48, 112}, Range{16, 128}}) {
        EXPECT_TRUE(
            says(error_of([&] { weights->rows(Family::q_proj, rows); }, ExitCode::internal), "q_proj", "layer 2"));
    }
    error_of([&] { weights->matrix(Family::q_proj); }, ExitCode::internal);
    error_of([&] { weights->matrix(Family::v_proj); }, ExitCode::internal);
    EXPECT_EQ(reader.bytes_read(), (32 + 16 + 16) * q.row_bytes());
}

TEST(LayerStream, brings_every_expert_of_a_mixture_by_its_number) {
    const Checkpoint checkpoint = opened((golden / "qwen3moe-tiny").string());
    constexpr Family of_expert[] = {Family::gate_proj, Family::up_proj, Family::down_proj};
    std::vector<LayerRequest> requests;
    for (std::int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
        requests.push_back({layer, {{Family::q_proj, {}}, {Family::router, {}}}});
        for (std::int64_t expert = 0; expert < checkpoint.config().moe.experts; ++expert) {
            for (const Family family : of_expert) requests.back().weights.push_back({family, {}, expert});
        }
    }
    requests.push_back({1, {{Family::down_proj, {{8, 24}}, 3}}});
    Reader reader(checkpoint.files(), 2);
    EXPECT_EQ(LayerStream::buffer_bytes(checkpoint, requests[0]), (64 + 4 + 4 * 3 * 32) * 48 * 2);
    LayerStream stream(from(checkpoint, reader), *backend, requests, 2, {});
    for (std::int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
        const LayerWeights& weights = *stream.next();
        expect_as_stored(checkpoint, weights, Family::q_proj);
        expect_as_stored(checkpoint, weights, Family::router);
        for (std::int64_t expert = 0; expert < checkpoint.config().moe.experts; ++expert) {
            for (const Family family : of_expert) expect_as_stored(checkpoint, weights, family, expert);
        }
        EXPECT_FALSE(weights.has(Family::gate_proj)) << "the layer has no MLP of its own";
        EXPECT_FALSE(weights.has(Family::gate_proj, 4));
        EXPECT_FALSE(weights.has(Family::q_proj, 0));
        EXPECT_TRUE(says(error_of([&] { weights.matrix(Family::up_proj, 4); }, ExitCode::internal), "up_proj",
                         "expert 4", fmt::format("layer {}", layer)));
    }
    const LayerWeights& rows = *stream.next();
    const std::string stored = test::stored_bytes(checkpoint, checkpoint.weight(Family::down_proj, 1, 3));
    EXPECT_EQ(bytes_of(rows.rows(Family::down_proj, {10, 20}, 3)), stored.substr(10 * 64, 10 * 64));
    EXPECT_FALSE(rows.has(Family::down_proj, 2));
}

TEST(LayerStream, brings_weights_of_no_layer_in_strips_too) {
    const Checkpoint checkpoint = opened((golden / "qwen3moe-tiny").string());
    Reader reader(checkpoint.files(), 2);
    std::vector<LayerRequest> requests = {
        {-1, {{Family::embed_tokens, {}}, {Family::lm_head, {}}, {Family::final_norm, {}}}}};
    constexpr std::int64_t strip = 300;  // 1024 rows: the last is shorter
    for (std::int64_t row = 0; row < 1024; row += strip)
        requests.push_back({-1, {{Family::lm_head, {{row, std::min<std::int64_t>(row + strip, 1024)}}}}});
    LayerStream stream(from(checkpoint, reader), *backend, requests, 2, {});
    const LayerWeights& whole = *stream.next();
    EXPECT_EQ(whole.layer(), -1);
    for (const Family family : {Family::embed_tokens, Family::lm_head, Family::final_norm})
        expect_as_stored(checkpoint, whole, family);
    const std::string stored = test::stored_bytes(checkpoint, checkpoint.weight(Family::lm_head, -1));
    std::string strips;
    for (std::size_t i = 1; i < requests.size(); ++i) {
        const LayerWeights& weights = *stream.next();
        EXPECT_FALSE(weights.has(Family::embed_tokens));
        strips += bytes_of(weights.rows(Family::lm_head, requests[i].weights[0].rows[0]));
        EXPECT_EQ(error_of([&] { weights.matrix(Family::lm_head); }, ExitCode::internal),
                  "rows 0 to 1024 of lm_head are not in memory");
    }
    EXPECT_EQ(strips, stored);
}

TEST(LayerStream, brings_weights_of_no_layer_of_a_synthetic_model) {
    const Checkpoint checkpoint = opened("synth:tiny");
    EXPECT_FALSE(checkpoint.has(Family::lm_head, -1)) << "tied";
    Reader reader(checkpoint.files(), 2);
    LayerStream stream(from(checkpoint, reader), *backend,
                       {{-1, {{Family::embed_tokens, {}}}}, {-1, {{Family::embed_tokens, {{100, 228}}}}}}, 2, {});
    const std::string whole = bytes_of(stream.next()->matrix(Family::embed_tokens));
    EXPECT_EQ(whole.size(), 256U * 64 * 2);
    EXPECT_EQ(bytes_of(stream.next()->rows(Family::embed_tokens, {100, 228})), whole.substr(100 * 128, 128 * 128));
}

TEST(LayerStream, has_nothing_that_the_checkpoint_lacks) {
    const Checkpoint checkpoint = opened((golden / "llama-tiny").string());
    EXPECT_FALSE(checkpoint.has(Family::q_norm, 0));
    Reader reader(checkpoint.files(), 2);
    for (const WeightRequest& wanted : {WeightRequest{Family::q_norm, {}}, WeightRequest{Family::gate_proj, {}, 0}}) {
        EXPECT_TRUE(says(error_of([&] {
                             LayerStream::buffer_bytes(checkpoint, {0, {wanted}});
                         }),
                         "llama", name_of(wanted.family)));
        error_of([&] { LayerStream(from(checkpoint, reader), *backend, {{0, {wanted}}}, 2, {}); });
    }
}

TEST(LayerStream, refuses_rows_out_of_order_or_beyond_the_end) {
    const Checkpoint checkpoint = opened("synth:tiny");
    for (const std::vector<Range>& rows :
         {std::vector<Range>{{0, 65}}, {{-1, 3}}, {{4, 4}}, {{8, 9}, {0, 1}}, {{0, 5}, {4, 8}}}) {
        EXPECT_TRUE(says(error_of(
                             [&] {
                                 LayerStream::buffer_bytes(checkpoint, {0, {{Family::q_proj, rows}}});
                             },
                             ExitCode::internal),
                         "model.layers.0.self_attn.q_proj.weight", "64"));
    }
}

TEST(LayerStream, leaves_repeated_weights_out_of_the_digest) {
    const Checkpoint checkpoint = opened((golden / "qwen3-tiny").string());
    auto requests = all_layers(checkpoint);
    const auto digest = [&](const std::vector<LayerRequest>& of) {
        Reader reader(checkpoint.files(), 2);
        LayerStream stream(from(checkpoint, reader), *backend, of, 2, {});
        while (stream.next() != nullptr) {
        }
        return reader.digest();
    };
    const auto repeat = [](LayerRequest& request) {
        for (WeightRequest& wanted : request.weights) wanted.repeated = true;
    };
    const std::uint64_t all = digest(requests);
    const std::vector<LayerRequest> low(requests.begin(), requests.begin() + 2);
    std::vector<LayerRequest> high(requests.begin() + 1, requests.end());
    repeat(high[0]);  // the halo of a measure that compares a layer with the one before it
    EXPECT_EQ(digest(low) + digest(high), all);
    requests.insert(requests.begin(), requests.back());
    repeat(requests[0]);
    EXPECT_EQ(digest(requests), all);
    requests.erase(requests.begin());
    std::vector<LayerRequest> apart(2, requests[0]);  // one counts the attention, the other the rest
    for (WeightRequest& wanted : apart[0].weights) wanted.repeated = wanted.family > Family::o_proj;
    for (WeightRequest& wanted : apart[1].weights) wanted.repeated = wanted.family <= Family::o_proj;
    EXPECT_EQ(digest({apart[0]}) + digest({apart[1]}), digest({requests[0]}));
}

TEST(LayerStream, reads_one_layer_ahead_and_leaves_the_one_in_use_alone) {
    const Checkpoint checkpoint = opened((golden / "qwen2-tiny").string());
    const auto requests = all_layers(checkpoint);
    Reader reader(checkpoint.files(), 2);
    LayerStream stream(from(checkpoint, reader), *backend, requests, 2, {});
    std::int64_t read = bytes_of(checkpoint, requests[0]);
    for (std::size_t layer = 0; layer < requests.size(); ++layer) {
        const LayerWeights* weights = stream.next();
        if (layer + 1 < requests.size()) read += bytes_of(checkpoint, requests[layer + 1]);
        EXPECT_TRUE(comes_to(reader, read)) << "the next layer is read while this one is used";
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        EXPECT_EQ(reader.bytes_read(), read) << "and no more than that one: two layers are in memory";
        expect_whole(checkpoint, *weights);
    }
}

TEST(LayerStream, of_layers_without_weights_brings_them_empty) {
    const Checkpoint checkpoint = opened("synth:tiny");
    Reader reader(checkpoint.files(), 1);
    LayerStream stream(from(checkpoint, reader), *backend, {{0, {}}, {3, {}}}, 2, {});
    for (const std::int64_t layer : {0, 3}) {
        const LayerWeights* weights = stream.next();
        ASSERT_NE(weights, nullptr);
        EXPECT_EQ(weights->layer(), layer);
        EXPECT_FALSE(weights->has(Family::q_proj));
    }
    EXPECT_EQ(stream.next(), nullptr);
}

TEST(LayerStream, of_nothing_ends_at_once) {
    const Checkpoint checkpoint = opened("synth:tiny");
    Reader reader(checkpoint.files(), 1);
    LayerStream stream(from(checkpoint, reader), *backend, {}, 2, {});
    EXPECT_EQ(stream.next(), nullptr);
}

TEST(LayerStream, may_be_left_at_any_time) {
    const Checkpoint checkpoint = opened("synth:tiny");
    const auto start = Clock::now();
    for (int used = 0; used < 5; ++used) {
        for (int repetition = 0; repetition < 20; ++repetition) {
            Reader reader(checkpoint.files(), 2);
            LayerStream stream(from(checkpoint, reader), *backend, all_layers(checkpoint), 2, {});
            for (int i = 0; i < used; ++i) stream.next();
        }
    }
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(20));
}

TEST(LayerStream, throws_what_reading_a_layer_threw_when_that_layer_is_asked_for) {
    TemporaryFolder folder;
    auto tensors = test::read_tensors(golden / "llama-tiny");
    for (test::StoredTensor& tensor : tensors) {
        if (tensor.name == "model.layers.2.self_attn.k_proj.weight")
            tensor.data.replace(4 * 48 * 3 + 4, 4, "\xff\xff\xff\x7f");
    }
    test::write_model(folder.path(), nlohmann::json::parse(test::read_file(golden / "llama-tiny" / "config.json")),
                      tensors);
    const Checkpoint checkpoint = opened(folder.path().string());
    Reader reader(checkpoint.files(), 2);
    LayerStream stream(from(checkpoint, reader), *backend, all_layers(checkpoint), 2, {});
    for (std::int64_t layer = 0; layer < 2; ++layer) {
        const LayerWeights* weights = stream.next();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the failure comes while layer 1 is in use
        expect_whole(checkpoint, *weights);
    }
    for (int again = 0; again < 2; ++again) {
        const std::string message = error_of([&] { stream.next(); }, ExitCode::numerics);
        EXPECT_TRUE(says(message, "model.layers.2.self_attn.k_proj.weight", "row 3, column 1"));
    }
}

TEST(LayerStream, widens_f8_to_f32_and_plans_the_memory_for_it) {
    TemporaryFolder folder;
    auto config = nlohmann::json::parse(test::read_file(golden / "llama-tiny" / "config.json"));
    auto tensors = test::read_tensors(golden / "llama-tiny");
    for (test::StoredTensor& tensor : tensors) {
        if (!tensor.name.ends_with("q_proj.weight")) continue;
        tensor.dtype = "F8_E4M3";
        tensor.data = std::string(48 * 48, '\x3c');  // 1.5
    }
    for (int layer = 0; layer < 5; ++layer) {
        const float scale = static_cast<float>(layer + 1);
        tensors.push_back({fmt::format("model.layers.{}.self_attn.q_proj.weight_scale_inv", layer),
                           "F32",
                           {1, 1},
                           std::string(reinterpret_cast<const char*>(&scale), 4)});
    }
    config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
    test::write_model(folder.path(), config, tensors);
    const Checkpoint checkpoint = opened(folder.path().string());
    std::vector<LayerRequest> requests;
    for (std::int64_t layer = 0; layer < 5; ++layer) requests.push_back({layer, {{Family::q_proj, {}}}});
    EXPECT_EQ(LayerStream::buffer_bytes(checkpoint, requests[0]), 48 * 48 * 4);
    Reader reader(checkpoint.files(), 2);
    LayerStream stream(from(checkpoint, reader), *backend, requests, 2, {});
    for (int layer = 0; layer < 5; ++layer) {
        const MatrixRef q = stream.next()->matrix(Family::q_proj);
        EXPECT_EQ(q.dtype, DType::f32);
        for (std::int64_t i = 0; i < 48 * 48; ++i) {
            float value = 0.0F;
            std::memcpy(&value, q.data + 4 * i, 4);
            ASSERT_EQ(value, 1.5F * static_cast<float>(layer + 1));
        }
    }
    EXPECT_EQ(reader.bytes_read(), 5 * (48 * 48 + 4)) << "scales are read as well";
}

/// A shard that nobody has begun to write: whoever opens it waits until open_writer().
class Waiting : public ::testing::Test {
protected:
    Waiting() : path_(folder_ / "shard") {
        if (::mkfifo(path_.c_str(), 0600) != 0) throw std::runtime_error("mkfifo failed");
    }
    ~Waiting() override {
        if (writer_ >= 0) ::close(writer_);
    }
    void open_writer() { writer_ = ::open(path_.c_str(), O_WRONLY | O_NONBLOCK); }

    TemporaryFolder folder_;
    fs::path path_;
    int writer_ = -1;
    Checkpoint checkpoint_ = opened((golden / "llama-tiny").string());
    std::vector<LayerRequest> requests_ = {{0, {{Family::q_proj, {}}}}};
};

TEST_F(Waiting, leaves_the_caller_idle) {
    const auto caller = std::this_thread::get_id();
    int idled = 0;
    Reader reader({path_}, 1);
    LayerStream stream(from(checkpoint_, reader), *backend, requests_, 2, [&] {
        EXPECT_EQ(std::this_thread::get_id(), caller);
        if (++idled == 3) open_writer();
    });
    EXPECT_TRUE(says(error_of([&] { stream.next(); }), path_.string())) << "a pipe has no offsets to read from";
    EXPECT_GE(idled, 3);
}

TEST_F(Waiting, ends_when_the_idle_callback_throws) {
    Reader reader({path_}, 1);
    LayerStream stream(from(checkpoint_, reader), *backend, requests_, 2, [&] {
        open_writer();  // else the stream could not be left either
        throw std::runtime_error("signal");
    });
    EXPECT_THROW(stream.next(), std::runtime_error);
}

}  // namespace
