#include "kernels/cpu/panels.hpp"

#include "kernels/cpu/panel_kernels.hpp"

namespace geom::panels {

const Kernels* kernels_of(std::string_view path) {
    if (path == "avx2-f32") return &avx2_f32;
    if (path == "avx512-f32") return &avx512_f32;
    if (path == "avx512-bf16") return &avx512_bf16;
    return nullptr;
}

}  // namespace geom::panels
