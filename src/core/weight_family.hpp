// The weights of a decoder, by the names the result file gives them. Core, because a plan speaks of them and reads
// none.
#pragma once

#include <cstdint>
#include <string_view>

namespace geom {

/// Matrices are [out, in] as stored: q_proj (H*hd, D), k_proj and v_proj (KV*hd, D), o_proj (D, H*hd), gate_proj and
/// up_proj (F, D), down_proj (D, F); norms and biases are one row.
enum class WeightFamily : std::uint8_t {
    q_proj,
    k_proj,
    v_proj,
    o_proj,
    gate_proj,
    up_proj,
    down_proj,
    input_ln,
    post_attn_ln,
    q_norm,
    k_norm,
    q_bias,
    k_bias,
    v_bias,
    router,
    embed_tokens,
    lm_head,
    final_norm,
};
inline constexpr int weight_family_count = static_cast<int>(WeightFamily::final_norm) + 1;

/// "q_proj", "input_ln", ... as in the result file.
std::string_view name_of(WeightFamily family) noexcept;

}  // namespace geom
