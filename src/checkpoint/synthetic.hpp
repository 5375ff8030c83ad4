// Deterministic weights of any shape, with answers known at any size.
//
// Element i of a tensor is drawn from Philox4x32-10 with key = seed and counter = (i div 2, hash of a name); one block
// of 128 bits serves two elements, four uniform 16-bit integers each. Their centred, doubled sum s is an even integer
// with |s| <= 4 * 65535 and variance (2^32 - 1) * 4/3. The hash is 64-bit FNV-1a.
//
//   W_l = (A * s(base name) + B * s(own name)) * 2^-m      A = round(sqrt(1 - t_l) * c * 2^m),  t_l = drift * l / (L -
//   1)
//                                                          B = round(sqrt(t_l) * c * 2^m),      c^2 = 3 / (4 (2^32 - 1)
//                                                          D)
//
// own name is the tensor's; base name is the tensor's without its layer number: "model.layers.7.mlp.up_proj.weight" and
// "model.layers.mlp.up_proj.weight". m makes 2^29 <= c * 2^m < 2^30, so that the weighted sum is an exact integer below
// 2^49 and is rounded once, to the tensor's type: every backend, rank and split gets the same bits. Entries have
// variance 1/D in every family. Tensors without a layer have t = 0. Norm weights are 1, biases 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.hpp"
#include "checkpoint/weight.hpp"

namespace geom {

/// A and B are at most this.
inline constexpr std::int64_t max_synthetic_factor = std::int64_t{1} << 30;

/// What "synth:SHAPE[?seed=N&layers=N&dtype=T&drift=X&iid=1]" says.
struct SyntheticModel {
    std::string shape;   ///< as typed, without the options
    std::string family;  ///< "qwen3", "qwen2", "llama", "qwen3_moe"; config.model_type says the same
    ModelConfig config;  ///< text holds a config.json that parse_model_config() reads to the same numbers
    DType dtype = DType::bf16;
    std::uint64_t seed = 0;
    double drift = 0.5;  ///< in [0, 1]
    bool iid = false;    ///< every t_l is 1: layers have nothing in common

    /// t_l of layer l; 0 for no layer (l < 0) and for L = 1.
    double drift_of(std::int64_t layer) const;
    /// The expected cosine of the QK operators of one head in two layers, rho^2 = (1 - t_l)(1 - t_l'): the product of
    /// the correlations sqrt((1 - t_l)(1 - t_l')) of W_Q and of W_K. 1 for a layer and itself.
    double expected_cosine(std::int64_t layer, std::int64_t layer_b) const;
    /// Its standard deviation, sqrt(1/D^2 + 2 rho^2 (1 - rho^2)^2 / (hd D)) with that rho^2; 0 for a layer and itself.
    double cosine_sd(std::int64_t layer, std::int64_t layer_b) const;
};

/// Parses what follows "synth:". Known by name: qwen3-0.6b/1.7b/4b/8b/14b/32b, qwen2.5-0.5b/1.5b/3b/7b/72b,
/// llama-3.1-8b/70b/405b, qwen3-30b-a3b, tiny; or by numbers: "L28-H16-KV8-hd128-D1024-F3072[-V151936]" (qwen3, tied
/// head). layers=N replaces L, also in t_l. dtype is bf16, f16, f32 or f64.
/// Throws Error(usage) that lists the known shapes and options.
SyntheticModel parse_synthetic(std::string_view text);

/// "qwen3-0.6b qwen3-1.7b ...", for messages.
std::string known_synthetic_shapes();

/// The source of a weight of stored tensor `name` in `layer` (< 0: no layer). `first_element` is the index inside the
/// tensor of the weight's first element: first row * columns for rows of a tensor.
SyntheticSource synthetic_source(const SyntheticModel& model, WeightFamily family, const std::string& name,
                                 std::int64_t layer, std::int64_t first_element);

/// Writes elements [begin, end) of the source, counted from its first element, as `dtype` to `out`.
/// dtype is bf16, f16, f32 or f64. Any split of a range, on any number of threads, writes the same bytes.
void generate(const SyntheticSource& source, DType dtype, std::int64_t begin, std::int64_t end, std::byte* out);

/// Token ids for a forward pass, each of [0, vocabulary) as likely as the others to 2^-32: id i is word * vocabulary
/// div 2^32 with word i mod 4 of the block of key = seed and counter = (i div 4, hash of "token_ids"). vocabulary <=
/// 2^31.
std::vector<std::int32_t> synthetic_tokens(std::uint64_t seed, std::int64_t vocabulary, std::int64_t count);

/// Writes the same model as a checkpoint folder: config.json and shards of at most `shard_bytes` of weights (a larger
/// tensor is alone in its shard) with their index, or one model.safetensors. Everything is written under temporary
/// names and renamed once all of it is on disk; config.json comes last. A failure leaves nothing behind. Throws
/// Error(output) when the folder exists and is not empty, does not have the space, or cannot be written.
void write_synthetic_checkpoint(const SyntheticModel& model, const std::filesystem::path& folder,
                                std::int64_t shard_bytes = std::int64_t{4} << 30);

}  // namespace geom
