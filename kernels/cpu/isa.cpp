#include "kernels/cpu/isa.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr std::array<std::string_view, isa_count> names = {"portable", "neon",        "neon-bf16", "avx2",
                                                           "avx512",   "avx512-bf16", "amx-bf16"};

}  // namespace

std::string_view name_of(Isa isa) noexcept { return names[static_cast<std::size_t>(isa)]; }

bool processor_has(Isa isa) {
    const auto isas = processor_isas();
    return std::find(isas.begin(), isas.end(), isa) != isas.end();
}

Isa processor_isa() { return processor_isas().back(); }

Isa usable_isa() {
    const char* asked = std::getenv("GEOM_MPI_ISA");
    if (asked == nullptr || *asked == '\0') return processor_isa();
    std::vector<std::string_view> here;
    for (const Isa isa : processor_isas()) {
        if (name_of(isa) == asked) return isa;
        here.push_back(name_of(isa));
    }
    throw Error(ExitCode::usage, fmt::format("GEOM_MPI_ISA={}: this processor has {}", asked, fmt::join(here, ", ")));
}

}  // namespace geom
