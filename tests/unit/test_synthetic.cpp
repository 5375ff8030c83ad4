#include "checkpoint/synthetic.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/families.hpp"
#include "checkpoint/generate.hpp"
#include "checkpoint/philox.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

namespace fs = std::filesystem;

constexpr std::array float_dtypes{DType::bf16, DType::f16, DType::f32, DType::f64};

std::string layer_tensor(std::int64_t layer, const std::string& matrix) {
    return "model.layers." + std::to_string(layer) + "." + matrix + ".weight";
}

SyntheticSource q_proj_source(const SyntheticModel& model, std::int64_t layer, std::int64_t first_element = 0) {
    return synthetic_source(model, WeightFamily::q_proj, layer_tensor(layer, "self_attn.q_proj"), layer, first_element);
}

template <typename T>
std::vector<T> generated(const SyntheticSource& source, DType dtype, std::int64_t begin, std::int64_t end) {
    std::vector<T> values(static_cast<std::size_t>(end - begin));
    generate(source, dtype, begin, end, reinterpret_cast<std::byte*>(values.data()));
    return values;
}

std::vector<std::byte> generated_bytes(const SyntheticSource& source, DType dtype, std::int64_t begin,
                                       std::int64_t end) {
    std::vector<std::byte> bytes(static_cast<std::size_t>((end - begin) * size_of(dtype)));
    generate(source, dtype, begin, end, bytes.data());
    return bytes;
}

std::vector<std::byte> portable_bytes(const SyntheticSource& source, DType dtype, std::int64_t begin,
                                      std::int64_t end) {
    std::vector<std::byte> bytes(static_cast<std::size_t>((end - begin) * size_of(dtype)));
    generate_portable(source, dtype, begin, end, bytes.data());
    return bytes;
}

/// A usage error whose message contains `part`.
void expect_usage_error(const std::string& text, const std::string& part) {
    try {
        parse_synthetic(text);
        ADD_FAILURE() << text << " was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::usage);
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
}

// ---- the generator

TEST(Philox, gives_the_known_answers_of_Random123) {
    // "philox4x32 10" lines of Random123's tests/kat_vectors
    using Words = std::array<std::uint32_t, 4>;
    constexpr std::uint32_t ones = 0xffffffffU;
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

struct Golden {
    std::string shape;
    WeightFamily family;
    std::string tensor;
    std::int64_t layer;
    std::int64_t first;
    std::vector<std::uint16_t> bf16, f16;
    std::vector<double> f64;
};

TEST(Synthetic, values_are_those_of_the_python_reference) {
    // printed by tests/reference/synthetic.py, which shares nothing with the C++ code
    const std::vector<Golden> golden{
        {"qwen3-0.6b",
         WeightFamily::q_proj,
         "model.layers.7.self_attn.q_proj.weight",
         7,
         0,
         {0xbcb5, 0xbb6e, 0xbcd0, 0x3c58},
         {0xa5ab, 0x9b72, 0xa681, 0x22bd},
         {-0x1.6aa4cf5111400p-6, -0x1.dc8064c1a6000p-9, -0x1.a05956b573800p-6, 0x1.af41a8d2df400p-7}},
        {"qwen3-32b?seed=1311768467463790320&drift=0.25",
         WeightFamily::down_proj,
         "model.layers.63.mlp.down_proj.weight",
         63,
         8589934593,
         {0x3c59, 0x3c0c, 0x3b90, 0x3883},
         {0x22c5, 0x205e, 0x1c82, 0x416},
         {0x1.b156a21bad100p-7, 0x1.1788c28f62f00p-7, 0x1.2069171ac8c00p-8, 0x1.0567d75ba8000p-14}},
        {"qwen3-0.6b?seed=1",
         WeightFamily::embed_tokens,
         "model.embed_tokens.weight",
         -1,
         7,
         {0xbc88, 0xbc0b, 0xbd6f, 0xbd50},
         {0xa444, 0xa05a, 0xab75, 0xaa82},
         {-0x1.10e4898c37700p-6, -0x1.168223b414600p-7, -0x1.dd203915e7c00p-5, -0x1.a082c7a0fe480p-5}}};
    for (const Golden& g : golden) {
        const SyntheticModel model = parse_synthetic(g.shape);
        const SyntheticSource source = synthetic_source(model, g.family, g.tensor, g.layer, g.first);
        EXPECT_EQ(generated<std::uint16_t>(source, DType::bf16, 0, 4), g.bf16) << g.tensor;
        EXPECT_EQ(generated<std::uint16_t>(source, DType::f16, 0, 4), g.f16) << g.tensor;
        EXPECT_EQ(generated<double>(source, DType::f64, 0, 4), g.f64) << g.tensor;
        // the same from inside a longer range, where the wide body makes them
        const SyntheticSource from_start = synthetic_source(model, g.family, g.tensor, g.layer, 0);
        const std::vector<double> longer = generated<double>(from_start, DType::f64, g.first, g.first + 64);
        EXPECT_EQ(std::vector<double>(longer.begin(), longer.begin() + 4), g.f64) << g.tensor;
    }
}

/// Sources with both halves, one half, and factors that produce ties and values a hair beside them.
std::vector<SyntheticSource> awkward_sources() {
    const SyntheticSource ordinary = q_proj_source(parse_synthetic("qwen3-0.6b"), 9);
    SyntheticSource base_only = ordinary, own_only = ordinary, ties = ordinary, hair = ordinary, small = ordinary;
    SyntheticSource far = ordinary;
    base_only.own_factor = 0;
    own_only.base_factor = 0;
    ties.base_factor = 1, ties.own_factor = 0;
    hair.base_factor = max_synthetic_factor, hair.own_factor = 1;
    small.exponent = 66;                                // subnormal as f16
    far.first_element = (std::int64_t{1} << 33) - 100;  // carries into the second word of the counter
    return {ordinary, base_only, own_only, ties, hair, small, far};
}

TEST(Synthetic, generating_with_the_wide_body_gives_the_bits_of_the_portable_one) {
    for (const SyntheticSource& source : awkward_sources())
        for (const DType dtype : float_dtypes)
            for (const auto& [begin, end] : {std::pair{0, 4096}, {1, 4096}, {0, 1}, {1, 2}, {5, 22}, {3, 3}, {7, 1030}})
                EXPECT_EQ(generated_bytes(source, dtype, begin, end), portable_bytes(source, dtype, begin, end))
                    << name_of(dtype) << " [" << begin << ", " << end << ")";
}

TEST(Synthetic, every_wide_body_of_this_processor_gives_the_bits_of_the_portable_one) {
    if (wide_generators().empty()) GTEST_SKIP() << "this processor has no wide body: nothing to compare";
    for (std::size_t body = 0; body < wide_generators().size(); ++body)
        for (const SyntheticSource& source : awkward_sources())
            for (const DType dtype : float_dtypes) {
                const std::int64_t steps = 300, first = (source.first_element + 1) / 2 * 2 - source.first_element;
                const std::int64_t end = first + steps * wide_step;
                std::vector<std::byte> wide(static_cast<std::size_t>(steps * wide_step * size_of(dtype)));
                wide_generators()[body](source, dtype, (source.first_element + first) / 2, steps, wide.data());
                EXPECT_EQ(wide, portable_bytes(source, dtype, first, end)) << "body " << body << ", " << name_of(dtype);
            }
}

TEST(Synthetic, any_split_gives_the_same_bytes) {
    const SyntheticSource source = q_proj_source(parse_synthetic("tiny"), 2, 5);
    for (const DType dtype : float_dtypes) {
        const std::vector<std::byte> whole = generated_bytes(source, dtype, 0, 500);
        for (const std::int64_t piece : {1, 2, 3, 16, 17, 31, 100}) {
            std::vector<std::byte> joined(whole.size());
            for (std::int64_t begin = 0; begin < 500; begin += piece)
                generate(source, dtype, begin, std::min<std::int64_t>(begin + piece, 500),
                         joined.data() + begin * size_of(dtype));
            EXPECT_EQ(joined, whole) << name_of(dtype) << " in pieces of " << piece;
        }
    }
}

TEST(Synthetic, threads_give_the_same_bytes) {
    const SyntheticSource source = q_proj_source(parse_synthetic("qwen3-0.6b"), 3);
    const std::vector<std::byte> whole = generated_bytes(source, DType::bf16, 0, 30001);
    std::vector<std::byte> joined(whole.size());
    std::vector<std::thread> threads;
    for (std::int64_t part = 0; part < 3; ++part)
        threads.emplace_back([&, part] {
            const Range r = share(30001, 3, part);
            generate(source, DType::bf16, r.begin, r.end, joined.data() + r.begin * 2);
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(joined, whole);
}

TEST(Synthetic, rows_of_a_tensor_are_a_part_of_it) {
    const SyntheticModel model = parse_synthetic("tiny");
    const std::vector<float> whole = generated<float>(q_proj_source(model, 1), DType::f32, 0, 64 * 64);
    const std::vector<float> rows = generated<float>(q_proj_source(model, 1, 17 * 64), DType::f32, 0, 3 * 64);
    EXPECT_EQ(rows, std::vector<float>(whole.begin() + 17 * 64, whole.begin() + 20 * 64));
}

// ---- rounding

/// Bits of n * 2^-exponent in a format of `mantissa` stored bits, rounded to nearest, ties to even: integers only.
std::uint16_t rounded_once(std::int64_t n, int exponent, int mantissa, int bias) {
    if (n == 0) return 0;
    const auto magnitude = static_cast<std::uint64_t>(std::abs(n));
    const int top = std::bit_width(magnitude) - 1 - exponent;  // exponent of the value
    const int quantum = std::max(top, 1 - bias) - mantissa;    // exponent of the last place
    const int dropped = quantum + exponent;
    std::uint64_t kept = dropped > 0 ? magnitude >> dropped : magnitude << -dropped;
    if (dropped > 0) {
        const std::uint64_t rest = magnitude - (kept << dropped), half = std::uint64_t{1} << (dropped - 1);
        if (rest > half || (rest == half && kept % 2 == 1)) ++kept;
    }
    const int exponent_field = std::max(top, 1 - bias) + bias - 1;  // the implicit bit of kept adds the one
    return static_cast<std::uint16_t>((n < 0 ? 0x8000 : 0) + (exponent_field << mantissa) + static_cast<int>(kept));
}

TEST(Synthetic, bf16_and_f16_are_rounded_once_from_the_exact_value) {
    constexpr std::int64_t n = 200000;
    std::int64_t rounded_twice_differ = 0;
    for (const SyntheticSource& source : awkward_sources()) {
        const std::vector<double> exact = generated<double>(source, DType::f64, 0, n);
        const std::vector<std::uint16_t> bf16 = generated<std::uint16_t>(source, DType::bf16, 0, n);
        const std::vector<std::uint16_t> f16 = generated<std::uint16_t>(source, DType::f16, 0, n);
        const std::vector<float> f32 = generated<float>(source, DType::f32, 0, n);
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < exact.size(); ++i) {
            const auto sum = static_cast<std::int64_t>(std::ldexp(exact[i], source.exponent));
            const std::uint16_t expected = rounded_once(sum, source.exponent, 7, 127);
            wrong += bf16[i] != expected;
            wrong += f16[i] != rounded_once(sum, source.exponent, 10, 15);
            wrong += f32[i] != static_cast<float>(exact[i]);
            rounded_twice_differ += f32_to_bf16(f32[i]) != expected;
        }
        EXPECT_EQ(wrong, 0);
    }
    EXPECT_GT(rounded_twice_differ, 10) << "the values do not tell one rounding from two";
}

// ---- statistics

struct Moments {
    double mean = 0.0, variance = 0.0;
};

Moments moments(const std::vector<double>& x) {
    const auto n = static_cast<double>(x.size());
    Moments m;
    for (const double v : x) m.mean += v / n;
    for (const double v : x) m.variance += (v - m.mean) * (v - m.mean) / n;
    return m;
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0) /
           std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0) *
                     std::inner_product(y.begin(), y.end(), y.begin(), 0.0));
}

TEST(Synthetic, entries_have_mean_zero_and_variance_one_over_D) {
    constexpr std::int64_t n = 1 << 20;
    for (const std::string shape : {"qwen3-0.6b", "qwen2.5-7b?iid=1", "llama-3.1-405b?drift=1"}) {
        const SyntheticModel model = parse_synthetic(shape);
        const auto hidden = static_cast<double>(model.config.hidden);
        for (const std::int64_t layer : {std::int64_t{0}, model.config.layers / 2, model.config.layers - 1}) {
            const Moments m = moments(generated<double>(q_proj_source(model, layer), DType::f64, 0, n));
            EXPECT_LT(std::abs(m.mean) * std::sqrt(hidden), 5.0 / std::sqrt(n)) << shape << " layer " << layer;
            EXPECT_LT(std::abs(m.variance * hidden - 1.0), 5.0 * std::sqrt(2.0 / n)) << shape << " layer " << layer;
        }
    }
}

TEST(Synthetic, layers_correlate_as_their_drift_says) {
    constexpr std::int64_t n = 1 << 18;
    for (const std::string shape : {"qwen3-0.6b", "qwen3-0.6b?drift=1", "qwen3-0.6b?drift=0", "qwen3-0.6b?iid=1"}) {
        const SyntheticModel model = parse_synthetic(shape);
        for (const auto& [a, b] : {std::pair{0, 27}, {0, 14}, {13, 14}, {20, 27}}) {
            const double found = correlation(generated<double>(q_proj_source(model, a), DType::f64, 0, n),
                                             generated<double>(q_proj_source(model, b), DType::f64, 0, n));
            const double expected = std::sqrt(model.expected_cosine(a, b));
            EXPECT_LT(std::abs(found - expected), 5.0 / std::sqrt(n)) << shape << ' ' << a << ' ' << b;
        }
    }
}

/// <W_K'W_Q, W_K''W_Q'> of one head, by the hd x hd products.
double operator_product(const std::vector<std::vector<double>>& q, const std::vector<std::vector<double>>& k, int a,
                        int b, std::int64_t hd, std::int64_t hidden) {
    const auto row_dot = [&](const std::vector<double>& x, std::int64_t i, const std::vector<double>& y,
                             std::int64_t j) {
        return std::inner_product(x.begin() + i * hidden, x.begin() + (i + 1) * hidden, y.begin() + j * hidden, 0.0);
    };
    double sum = 0.0;
    for (std::int64_t i = 0; i < hd; ++i)
        for (std::int64_t j = 0; j < hd; ++j) sum += row_dot(k[a], i, k[b], j) * row_dot(q[a], i, q[b], j);
    return sum;
}

TEST(Synthetic, operators_have_the_expected_cosine) {
    const SyntheticModel model = parse_synthetic("L5-H1-KV1-hd16-D256-F64-V16?seed=3");
    constexpr std::int64_t n = 16 * 256;
    std::vector<std::vector<double>> q, k;
    for (std::int64_t layer = 0; layer < 5; ++layer) {
        q.push_back(generated<double>(q_proj_source(model, layer), DType::f64, 0, n));
        const auto source =
            synthetic_source(model, WeightFamily::k_proj, layer_tensor(layer, "self_attn.k_proj"), layer, 0);
        k.push_back(generated<double>(source, DType::f64, 0, n));
    }
    const auto product = [&](int a, int b) { return operator_product(q, k, a, b, 16, 256); };
    for (int a = 0; a < 5; ++a) {
        for (int b = 0; b < a; ++b) {
            const double cosine = product(a, b) / std::sqrt(product(a, a) * product(b, b));
            EXPECT_LT(std::abs(cosine - model.expected_cosine(a, b)), 5.0 * model.cosine_sd(a, b)) << a << ' ' << b;
        }
        EXPECT_EQ(model.expected_cosine(a, a), 1.0);
        EXPECT_EQ(model.cosine_sd(a, a), 0.0);
    }
}

TEST(Synthetic, seeds_tensors_and_experts_have_nothing_in_common) {
    constexpr std::int64_t n = 1 << 16;
    const SyntheticModel model = parse_synthetic("qwen3-30b-a3b"), other = parse_synthetic("qwen3-30b-a3b?seed=1");
    const auto values = [&](const SyntheticModel& m, const std::string& matrix) {
        const auto source = synthetic_source(m, WeightFamily::up_proj, layer_tensor(4, matrix), 4, 0);
        return generated<double>(source, DType::f64, 0, n);
    };
    const std::vector<double> reference = values(model, "mlp.experts.4.up_proj");
    EXPECT_LT(std::abs(correlation(reference, values(other, "mlp.experts.4.up_proj"))), 5.0 / std::sqrt(n));
    EXPECT_LT(std::abs(correlation(reference, values(model, "mlp.experts.5.up_proj"))), 5.0 / std::sqrt(n));
    EXPECT_LT(std::abs(correlation(reference, values(model, "mlp.experts.4.gate_proj"))), 5.0 / std::sqrt(n));
}

TEST(Synthetic, norms_are_one_and_biases_zero) {
    const SyntheticModel model = parse_synthetic("tiny");
    using enum WeightFamily;
    for (const WeightFamily family : {input_ln, post_attn_ln, q_norm, k_norm, final_norm, q_bias, k_bias, v_bias}) {
        const float expected = family == q_bias || family == k_bias || family == v_bias ? 0.0F : 1.0F;
        const SyntheticSource source = synthetic_source(model, family, "any", 0, 0);
        EXPECT_EQ(generated<float>(source, DType::f32, 0, 5), std::vector<float>(5, expected));
        EXPECT_EQ(generated<std::uint16_t>(source, DType::bf16, 0, 1)[0], expected == 1.0F ? 0x3f80 : 0);
    }
}

TEST(Synthetic, a_source_that_is_malformed_is_refused) {
    SyntheticSource source = q_proj_source(parse_synthetic("tiny"), 1);
    std::array<std::byte, 64> out{};
    EXPECT_THROW(generate(source, DType::i32, 0, 4, out.data()), Error);
    EXPECT_THROW(generate(source, DType::bf16, -1, 4, out.data()), Error);
    EXPECT_THROW(generate(source, DType::bf16, 4, 1, out.data()), Error);
    source.base_factor = max_synthetic_factor + 1;
    EXPECT_THROW(generate(source, DType::bf16, 0, 4, out.data()), Error);
}

// ---- names

std::int64_t parameters(const ModelConfig& c, bool qk_norm, bool qkv_bias) {
    const std::int64_t attention = 2 * (c.heads + c.kv_heads) * c.head_dim * c.hidden;
    const std::int64_t mlp =
        c.moe.experts == 0 ? 3 * c.hidden * c.intermediate : c.moe.experts * (3 * c.moe.intermediate + 1) * c.hidden;
    const std::int64_t extra =
        (qk_norm ? 2 * c.head_dim : 0) + (qkv_bias ? (c.heads + 2 * c.kv_heads) * c.head_dim : 0);
    return c.vocabulary * c.hidden * (c.tied_head ? 1 : 2) + c.hidden +
           c.layers * (2 * c.hidden + attention + mlp + extra);
}

TEST(SyntheticShapes, named_shapes_have_the_parameters_of_the_models) {
    // published counts (tied heads once)
    const std::vector<std::pair<std::string, std::int64_t>> published{
        {"qwen3-0.6b", 596049920},      {"qwen3-1.7b", 1720574976},       {"qwen3-4b", 4022468096},
        {"qwen3-8b", 8190735360},       {"qwen3-14b", 14768307200},       {"qwen3-32b", 32762123264},
        {"qwen2.5-0.5b", 494032768},    {"qwen2.5-1.5b", 1543714304},     {"qwen2.5-3b", 3085938688},
        {"qwen2.5-7b", 7615616512},     {"qwen2.5-72b", 72706203648},     {"llama-3.1-8b", 8030261248},
        {"llama-3.1-70b", 70553706496}, {"llama-3.1-405b", 405853388800}, {"qwen3-30b-a3b", 30532122624}};
    for (const auto& [name, count] : published) {
        const SyntheticModel model = parse_synthetic(name);
        EXPECT_EQ(parameters(model.config, name.starts_with("qwen3"), name.starts_with("qwen2")), count) << name;
    }
}

TEST(SyntheticShapes, numbers_and_options_are_taken) {
    const SyntheticModel model = parse_synthetic(
        "L28-H16-KV8-hd128-D1024-F3072-V500?seed=18446744073709551615&layers=9&dtype=f32&drift=0.25&iid=1");
    EXPECT_EQ(model.shape, "L28-H16-KV8-hd128-D1024-F3072-V500");
    EXPECT_EQ(model.family, "qwen3");
    EXPECT_EQ(model.config.layers, 9);
    EXPECT_EQ(model.config.heads, 16);
    EXPECT_EQ(model.config.kv_heads, 8);
    EXPECT_EQ(model.config.head_dim, 128);
    EXPECT_EQ(model.config.hidden, 1024);
    EXPECT_EQ(model.config.intermediate, 3072);
    EXPECT_EQ(model.config.vocabulary, 500);
    EXPECT_EQ(model.seed, ~std::uint64_t{0});
    EXPECT_EQ(model.dtype, DType::f32);
    EXPECT_EQ(model.drift, 0.25);
    EXPECT_TRUE(model.iid);
    EXPECT_EQ(parse_synthetic("L2-H2-KV1-hd8-D16-F32").config.vocabulary, 151936);
}

TEST(SyntheticShapes, drift_goes_with_the_depth_that_is_asked_for) {
    EXPECT_EQ(parse_synthetic("qwen3-0.6b?layers=3").drift_of(1), 0.25);
    EXPECT_EQ(parse_synthetic("qwen3-0.6b?layers=3").drift_of(2), 0.5);
    EXPECT_EQ(parse_synthetic("qwen3-0.6b?layers=1").drift_of(0), 0.0);
    EXPECT_EQ(parse_synthetic("qwen3-0.6b?iid=1").drift_of(0), 1.0);
    EXPECT_EQ(parse_synthetic("qwen3-0.6b?iid=1").drift_of(-1), 0.0);
}

TEST(SyntheticShapes, what_is_wrong_is_named_beside_what_is_known) {
    for (const std::string shape : {"", "qwen3-5b", "QWEN3-0.6B", "L2", "L2-H2-KV1-hd8-D16", "L2-H2-KV1-hd8-D16-F32-X1",
                                    "L2-L3-H2-KV1-hd8-D16-F32", "L-H2-KV1-hd8-D16-F32", "L0-H2-KV1-hd8-D16-F32",
                                    "L2-H3-KV2-hd8-D16-F32", "L2-H2-KV1-hd7-D16-F32", "L2-H2-KV1-hd8-D99999999-F32",
                                    "L2-H2-KV1-hd8-D99999999999999999999-F32", "L99999-H2-KV1-hd8-D16-F32"})
        expect_usage_error(shape, "known shapes: qwen3-0.6b");
    for (const std::string option :
         {"", "seed", "seed=", "seed=-1", "seed=1x", "seed=18446744073709551616", "layers=0", "layers=5000", "dtype=f8",
          "drift=1.5", "drift=-0.1", "drift=nan", "iid=2", "colour=red", "seed=1&&iid=1", "seed=1&seed=2"})
        expect_usage_error("tiny?" + option, "known options, separated by '&': seed=");
}

TEST(SyntheticShapes, config_json_says_the_same_as_the_config) {
    for (const std::string shape : {"tiny?dtype=f16", "qwen2.5-72b", "llama-3.1-405b?layers=5", "qwen3-30b-a3b"}) {
        const SyntheticModel model = parse_synthetic(shape);
        const ModelConfig read = parse_model_config(model.config.text, shape);
        const ModelConfig& made = model.config;
        EXPECT_EQ(read.model_type, made.model_type);
        EXPECT_EQ(read.layers, made.layers);
        EXPECT_EQ(read.heads, made.heads);
        EXPECT_EQ(read.kv_heads, made.kv_heads);
        EXPECT_EQ(read.head_dim, made.head_dim);
        EXPECT_EQ(read.hidden, made.hidden);
        EXPECT_EQ(read.intermediate, made.intermediate);
        EXPECT_EQ(read.vocabulary, made.vocabulary);
        EXPECT_EQ(read.norm_eps, made.norm_eps);
        EXPECT_EQ(read.tied_head, made.tied_head);
        EXPECT_EQ(read.begin_token, made.begin_token);
        EXPECT_EQ(read.rope.type, made.rope.type);
        EXPECT_EQ(read.rope.theta, made.rope.theta);
        EXPECT_EQ(read.rope.factor, made.rope.factor);
        EXPECT_EQ(read.rope.low_freq_factor, made.rope.low_freq_factor);
        EXPECT_EQ(read.rope.high_freq_factor, made.rope.high_freq_factor);
        EXPECT_EQ(read.rope.partial, made.rope.partial);
        EXPECT_EQ(read.rope.original_max_positions, made.rope.original_max_positions);
        EXPECT_EQ(read.moe.experts, made.moe.experts);
        EXPECT_EQ(read.moe.experts_per_token, made.moe.experts_per_token);
        EXPECT_EQ(read.moe.intermediate, made.moe.intermediate);
        EXPECT_EQ(read.moe.renormalise, made.moe.renormalise);
        EXPECT_EQ(read.moe.decoder_sparse_step, made.moe.decoder_sparse_step);
    }
}

// ---- the checkpoint folder

class SyntheticCheckpoint : public testing::Test {
protected:
    void SetUp() override {
        root_ = fs::path(testing::TempDir()) /
                (std::string("geom_") + testing::UnitTest::GetInstance()->current_test_info()->name() +
                 std::to_string(::getpid()));
        fs::remove_all(root_);
        fs::create_directories(root_);
    }
    void TearDown() override { fs::remove_all(root_); }

    static std::string read(const fs::path& path) {
        std::ifstream file(path, std::ios::binary);
        EXPECT_TRUE(file) << path;
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }

    /// Names below `folder`, sorted.
    static std::vector<std::string> listing(const fs::path& folder) {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
        std::sort(names.begin(), names.end());
        return names;
    }

    fs::path root_;
};

/// The tensors of one file by name: {"dtype", "shape", "bytes"}, after the rules of the format have been checked.
struct StoredTensor {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string bytes;
};

void read_safetensors(const std::string& file, std::map<std::string, StoredTensor>& tensors) {
    std::uint64_t length = 0;
    ASSERT_GE(file.size(), sizeof length);
    std::memcpy(&length, file.data(), sizeof length);
    ASSERT_LE(8 + length, file.size());
    EXPECT_EQ(length % 8, 0U) << "data are not aligned";
    const auto header = nlohmann::ordered_json::parse(file.substr(8, length));
    std::size_t expected_begin = 0;
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") continue;
        const std::size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
        EXPECT_EQ(begin, expected_begin) << name << ": a gap, or not in order";
        expected_begin = end;
        EXPECT_TRUE(tensors
                        .emplace(name, StoredTensor{entry.at("dtype"), entry.at("shape"),
                                                    file.substr(8 + length + begin, end - begin)})
                        .second);
    }
    EXPECT_EQ(8 + length + expected_begin, file.size());
}

void expect_generated(const StoredTensor& stored, const SyntheticModel& model, WeightFamily family,
                      const std::string& name, std::int64_t layer) {
    const std::int64_t n =
        std::accumulate(stored.shape.begin(), stored.shape.end(), std::int64_t{1}, std::multiplies<>());
    const auto bytes = generated_bytes(synthetic_source(model, family, name, layer, 0), model.dtype, 0, n);
    ASSERT_EQ(stored.bytes.size(), bytes.size()) << name;
    EXPECT_EQ(std::memcmp(stored.bytes.data(), bytes.data(), bytes.size()), 0) << name;
}

TEST_F(SyntheticCheckpoint, in_one_file_holds_what_generate_gives) {
    const SyntheticModel model = parse_synthetic("tiny?dtype=f32&seed=5");
    write_synthetic_checkpoint(model, root_ / "made" / "here");
    EXPECT_EQ(listing(root_ / "made" / "here"), (std::vector<std::string>{"config.json", "model.safetensors"}));
    EXPECT_EQ(read(root_ / "made" / "here" / "config.json"), model.config.text);
    std::map<std::string, StoredTensor> tensors;
    read_safetensors(read(root_ / "made" / "here" / "model.safetensors"), tensors);
    EXPECT_EQ(tensors.size(), 2U + 4U * 11U);  // tied: no lm_head
    EXPECT_EQ(tensors.count("lm_head.weight"), 0U);
    EXPECT_EQ(tensors.at("model.norm.weight").shape, std::vector<std::int64_t>{64});
    EXPECT_EQ(tensors.at("model.layers.1.self_attn.q_norm.weight").shape, std::vector<std::int64_t>{16});
    EXPECT_EQ(tensors.at("model.layers.1.self_attn.k_proj.weight").shape, (std::vector<std::int64_t>{32, 64}));
    EXPECT_EQ(tensors.at("model.embed_tokens.weight").dtype, "F32");
    expect_generated(tensors.at("model.embed_tokens.weight"), model, WeightFamily::embed_tokens,
                     "model.embed_tokens.weight", -1);
    for (std::int64_t layer = 0; layer < 4; ++layer) {
        const auto check = [&](WeightFamily family, const std::string& matrix) {
            expect_generated(tensors.at(layer_tensor(layer, matrix)), model, family, layer_tensor(layer, matrix),
                             layer);
        };
        check(WeightFamily::q_proj, "self_attn.q_proj");
        check(WeightFamily::o_proj, "self_attn.o_proj");
        check(WeightFamily::down_proj, "mlp.down_proj");
        check(WeightFamily::input_ln, "input_layernorm");
    }
}

TEST_F(SyntheticCheckpoint, in_shards_has_an_index_that_finds_every_tensor) {
    const SyntheticModel model = parse_synthetic("tiny");
    write_synthetic_checkpoint(model, root_, 50000);
    const auto index = nlohmann::json::parse(read(root_ / "model.safetensors.index.json"));
    std::map<std::string, StoredTensor> all;
    std::size_t shards = 0, bytes = 0;
    for (const std::string& name : listing(root_)) {
        if (!name.ends_with(".safetensors")) continue;
        ++shards;
        std::map<std::string, StoredTensor> tensors;
        read_safetensors(read(root_ / name), tensors);
        std::size_t shard_bytes = 0;
        for (auto& [tensor, stored] : tensors) {
            EXPECT_EQ(index.at("weight_map").at(tensor), name);
            shard_bytes += stored.bytes.size();
            EXPECT_TRUE(all.emplace(tensor, std::move(stored)).second) << tensor << " is stored twice";
        }
        EXPECT_LE(shard_bytes, 50000U);
        bytes += shard_bytes;
    }
    EXPECT_GT(shards, 2U);
    EXPECT_EQ(listing(root_).size(), shards + 2);
    EXPECT_TRUE(fs::exists(root_ / ("model-00001-of-0000" + std::to_string(shards) + ".safetensors")));
    EXPECT_EQ(index.at("weight_map").size(), all.size());
    EXPECT_EQ(index.at("metadata").at("total_size"), bytes);
    const std::string name = layer_tensor(3, "mlp.up_proj");
    expect_generated(all.at(name), model, WeightFamily::up_proj, name, 3);
}

TEST_F(SyntheticCheckpoint, of_qwen2_has_biases_and_of_a_mixture_experts) {
    SyntheticModel biased = parse_synthetic("qwen2.5-0.5b?layers=1");
    biased.config.vocabulary = 32;  // small ones of their kind
    write_synthetic_checkpoint(biased, root_ / "dense");
    std::map<std::string, StoredTensor> dense;
    read_safetensors(read(root_ / "dense" / "model.safetensors"), dense);
    EXPECT_EQ(dense.size(), 2U + 12U);
    EXPECT_EQ(dense.at("model.layers.0.self_attn.k_proj.bias").bytes, std::string(2 * 128, '\0'));

    SyntheticModel mixture = parse_synthetic("qwen3-30b-a3b?layers=2");
    mixture.config.vocabulary = 32;
    mixture.config.hidden = 16;
    mixture.config.moe.experts = 3;
    mixture.config.moe.intermediate = 8;
    write_synthetic_checkpoint(mixture, root_ / "mixture");
    std::map<std::string, StoredTensor> tensors;
    read_safetensors(read(root_ / "mixture" / "model.safetensors"), tensors);
    EXPECT_EQ(tensors.size(), 3U + 2U * (8U + 1U + 3U * 3U));
    EXPECT_EQ(tensors.at("model.layers.1.mlp.experts.2.down_proj.weight").shape, (std::vector<std::int64_t>{16, 8}));
    EXPECT_EQ(tensors.at("model.layers.1.mlp.gate.weight").shape, (std::vector<std::int64_t>{3, 16}));
    EXPECT_EQ(tensors.count("lm_head.weight"), 1U);
}

/// An output error; the message contains `part`.
void expect_output_error(const std::string& shape, const fs::path& folder, const std::string& part) {
    try {
        write_synthetic_checkpoint(parse_synthetic(shape), folder);
        ADD_FAILURE() << "written";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::output);
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
}

TEST_F(SyntheticCheckpoint, never_goes_into_a_folder_with_something_in_it) {
    std::ofstream(root_ / "mine") << "precious";
    expect_output_error("tiny", root_, "not an empty folder");
    expect_output_error("tiny", root_ / "mine", "not an empty folder");
    expect_output_error("tiny", root_ / "mine" / "below", "cannot");
    EXPECT_EQ(listing(root_), std::vector<std::string>{"mine"});
    EXPECT_EQ(read(root_ / "mine"), "precious");
}

TEST_F(SyntheticCheckpoint, that_cannot_fit_says_how_many_bytes_are_missing) {
    expect_output_error("L4-H1024-KV1024-hd1024-D1048576-F1048576?dtype=f64", root_ / "big",
                        "bytes, the file system has");
    EXPECT_FALSE(fs::exists(root_ / "big"));
}

TEST_F(SyntheticCheckpoint, that_breaks_off_leaves_nothing) {
    // a limit on the size of files stands in for a disk that fills up on the way
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit small = before;
    small.rlim_cur = 100000;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_output_error("tiny", root_ / "made", "cannot write");
    expect_output_error("tiny", root_, "cannot write");
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    std::signal(SIGXFSZ, old_handler);
    EXPECT_TRUE(listing(root_).empty());
}

TEST(SyntheticTokens, are_those_of_the_reference_at_any_count) {
    using Ids = std::vector<std::int32_t>;
    const Ids first = {49370, 35053, 151375, 130221, 74984, 116591, 32574, 51049, 105839};
    EXPECT_EQ(synthetic_tokens(0, 151936, 9), first);
    EXPECT_EQ(synthetic_tokens(0, 151936, 6), Ids(first.begin(), first.begin() + 6));
    EXPECT_EQ(synthetic_tokens((std::uint64_t{1} << 40) + 5, 1024, 5), (Ids{627, 751, 180, 362, 666}));
}

}  // namespace
}  // namespace geom
