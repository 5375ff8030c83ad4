#include "core/weight_family.hpp"

#include <array>

namespace geom {

std::string_view name_of(WeightFamily family) noexcept {
    // In the order of WeightFamily.
    static constexpr std::array<std::string_view, weight_family_count> names = {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",    "input_ln", "post_attn_ln",
        "q_norm", "k_norm", "q_bias", "k_bias", "v_bias",    "router",  "embed_tokens", "lm_head",  "final_norm",
    };
    return names[static_cast<std::size_t>(family)];
}

}  // namespace geom
