// What this processor can do beyond the baseline, asked once.
#pragma once

#include <string>

namespace geom {

/// AMX with bf16 and AVX-512, and the kernel lets this process use the tiles (asks for the permission).
bool have_amx_bf16();

/// The processor as it names itself; empty when it does not.
std::string processor_name();

}  // namespace geom
