#include "core/residual_settings.hpp"

#include <array>

namespace geom {

namespace {

struct Phase {
    const char* name;
    std::int64_t end_of_64;  ///< first layer beyond it, of 64
    double end;              ///< share of the layers before that
};
constexpr std::array default_phases{Phase{"A", 7, 0.11},  Phase{"B", 10, 0.15}, Phase{"C", 32, 0.5},
                                    Phase{"D", 47, 0.75}, Phase{"E", 59, 0.92}, Phase{"tail", 64, 2.0}};

bool before_end(const Phase& phase, std::int64_t layer, std::int64_t layers) {
    if (layers == 64) return layer < phase.end_of_64;
    return static_cast<double>(layer) / static_cast<double>(layers) < phase.end;
}

}  // namespace

void use_default_phases(ResidualSettings& settings, std::int64_t model_layers) {
    settings.phases.clear();
    settings.phase_of.clear();
    for (const Phase& phase : default_phases) settings.phases.emplace_back(phase.name);
    std::size_t phase = 0;
    for (std::int64_t layer = 0; layer < model_layers; ++layer) {
        while (!before_end(default_phases[phase], layer, model_layers)) ++phase;
        settings.phase_of.push_back(static_cast<std::int32_t>(phase));
    }
}

}  // namespace geom
