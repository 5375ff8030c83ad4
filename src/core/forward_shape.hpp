// What a forward pass has to know of a model besides the sizes of its weights. Pure data: ModelShape carries it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace geom {

/// Rotary position embedding. Every head_dim is rotated whole, dimension i together with i + head_dim / 2.
struct RopeShape {
    enum class Type : std::uint8_t { standard, linear, llama3, yarn } type = Type::standard;
    double theta = 10000.0;
    double factor = 1.0;                      ///< of all but standard
    double low_freq_factor = 1.0;             ///< llama3
    double high_freq_factor = 4.0;            ///< llama3
    double beta_fast = 32.0;                  ///< yarn
    double beta_slow = 1.0;                   ///< yarn
    bool truncate = true;                     ///< yarn: whole dimensions between fast and slow
    double attention_factor = 1.0;            ///< yarn: of cosines and sines
    std::int64_t original_max_positions = 0;  ///< llama3, yarn
};

struct ForwardShape {
    std::string refused;  ///< why this program has no forward pass for the model; empty where it has one
    RopeShape rope;
    double norm_eps = 1e-6;
    std::int64_t sliding_window = 0;     ///< tokens a query sees; 0: all
    std::int64_t experts_per_token = 0;  ///< of layers that are mixtures
    bool renormalise = false;            ///< the weights of a token's experts add up to 1
    std::int64_t begin_token = -1;       ///< -1: none

    /// Why there is no forward pass for a text of so many tokens; empty where there is one.
    std::string refusal(std::int64_t tokens) const;
};

/// The angles of dimension i (of head_dim / 2) are position * frequencies[i]; cosines and sines are multiplied by
/// scale.
struct Rotation {
    std::vector<float> frequencies;
    float scale = 1.0F;
};
Rotation rotation_of(const RopeShape& rope, std::int64_t head_dim);

}  // namespace geom
