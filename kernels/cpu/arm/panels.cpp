#include "kernels/cpu/panels.hpp"

#include "kernels/cpu/panel_kernels.hpp"

namespace geom::panels {

const Kernels* kernels_of(std::string_view path) {
    if (path == "neon-f32") return &neon_f32;
    if (path == "neon-bf16") return &neon_bf16;
    return nullptr;
}

}  // namespace geom::panels
