// What the measure residual looks at, and which phases it divides the model into: options that change its numbers, and
// what the files they name hold.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace geom {

struct ResidualSettings {
    // where streams come from: one of the two, or neither, and then the measure has nothing to look at
    std::vector<std::int32_t> token_ids;  ///< that go through the model
    std::string hidden_states;            ///< a file of streams (measures/hidden_states.hpp)

    std::int64_t tokens = 0;   ///< of the text
    bool keep_first = false;   ///< the first token counts like the others
    bool save_hidden = false;  ///< streams go into the result
    bool legacy = false;       ///< also the last layer's step with the stream after the final norm
    bool exact_f32 = false;    ///< --forward-dtype f32

    std::vector<std::string> phases;     ///< of the model, in order
    std::vector<std::int32_t> phase_of;  ///< by decoder layer: index into phases

    bool forward() const noexcept { return !token_ids.empty(); }
    /// Tokens that statistics are over.
    std::int64_t counted() const noexcept { return tokens - (keep_first ? 0 : 1); }
};

/// Phases A to E and tail: of 64 layers those that begin at 0, 7, 10, 32, 47, 59, else by the share of layers before:
/// below .11, .15, .5, .75, .92.
void use_default_phases(ResidualSettings& settings, std::int64_t model_layers);

}  // namespace geom
