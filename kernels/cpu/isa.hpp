// What this processor can do beyond the baseline, asked once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace geom {

/// Instruction sets that products of head blocks are written for. Each has those before it of the same architecture, so
/// that the least of all ranks' is one that every rank has.
enum class Isa : std::uint8_t {
    portable,     ///< what the compiler's baseline and OpenBLAS have
    neon,         ///< aarch64: its baseline
    neon_bf16,    ///< aarch64: products of bf16 (BFMMLA)
    avx2,         ///< x86-64: with FMA
    avx512,       ///< x86-64: F, BW, DQ, VL
    avx512_bf16,  ///< x86-64: products of bf16 pairs
    amx_bf16      ///< x86-64: tiles, which the kernel lets this process use (asks for the permission)
};
inline constexpr int isa_count = static_cast<int>(Isa::amx_bf16) + 1;

/// "portable", "neon", "neon-bf16", "avx2", "avx512", "avx512-bf16", "amx-bf16".
std::string_view name_of(Isa isa) noexcept;

/// This processor's, from the least to the most.
std::span<const Isa> processor_isas();
bool processor_has(Isa isa);
Isa processor_isa();  ///< the most

/// processor_isa(), or less where the environment variable GEOM_MPI_ISA names less, for tests. Throws Error(usage) for
/// a name that is not known, or that this processor does not have.
Isa usable_isa();

/// The processor as it names itself; empty when it does not.
std::string processor_name();

}  // namespace geom
