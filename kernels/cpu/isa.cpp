#include "kernels/cpu/isa.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr std::array<std::string_view, 5> names = {"portable", "avx2", "avx512", "avx512-bf16", "amx-bf16"};

}  // namespace

std::string_view name_of(Isa isa) noexcept { return names[static_cast<std::size_t>(isa)]; }

Isa usable_isa() {
    const Isa most = processor_isa();
    const char* asked = std::getenv("GEOM_MPI_ISA");
    if (asked == nullptr || *asked == '\0') return most;
    const auto found = std::find(names.begin(), names.end(), asked);
    const auto isa = static_cast<Isa>(found - names.begin());
    if (found == names.end() || isa > most) {
        throw Error(ExitCode::usage,
                    fmt::format("GEOM_MPI_ISA={}: this processor has {}", asked,
                                fmt::join(names.begin(), names.begin() + static_cast<int>(most) + 1, ", ")));
    }
    return isa;
}

}  // namespace geom
