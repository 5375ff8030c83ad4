// What this processor can do beyond the baseline, asked once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace geom {

/// Instruction sets that products of head blocks are written for. Each has those before it, so that the least of all
/// ranks' is one that every rank has.
enum class Isa : std::uint8_t {
    portable,     ///< what the compiler's baseline and OpenBLAS have
    avx2,         ///< with FMA
    avx512,       ///< F, BW, DQ, VL
    avx512_bf16,  ///< products of bf16 pairs
    amx_bf16      ///< tiles, which the kernel lets this process use (asks for the permission)
};

/// "portable", "avx2", "avx512", "avx512-bf16", "amx-bf16".
std::string_view name_of(Isa isa) noexcept;

Isa processor_isa();

/// processor_isa(), or less where the environment variable GEOM_MPI_ISA names less, for tests. Throws Error(usage) for
/// a name that is not known, or that this processor does not have.
Isa usable_isa();

/// The processor as it names itself; empty when it does not.
std::string processor_name();

}  // namespace geom
