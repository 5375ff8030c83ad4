// Stands in where there is no AMX; processor_isa() says so, and none of this is ever called.
#include "kernels/cpu/amx_tiles.hpp"

#include "core/error.hpp"

namespace geom::amx {

namespace {

[[noreturn]] void absent() {
    throw Error(ExitCode::internal, "AMX products were asked for on a processor without AMX");
}

}  // namespace

void pack(const std::uint16_t*, std::int64_t, std::int64_t, std::byte*) { absent(); }
void transpose(const std::byte*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::byte*) { absent(); }
void configure() { absent(); }
void release() { absent(); }
void accumulate(const Product&, float*) { absent(); }
double dot(const float*, const float*, std::int64_t) { absent(); }

}  // namespace geom::amx
