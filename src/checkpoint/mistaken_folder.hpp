// What people give for a model's folder that is none: what it is instead, and what to give.
#pragma once

#include <filesystem>
#include <string>

namespace geom {

/// A sentence without its subject ("holds GGUF files ...; give ..."), for a folder in which no config.json or no
/// safetensors were found: a folder of GGUF files, a PEFT adapter, a model's folder of the hub cache. Empty for any
/// other.
std::string what_it_is_instead(const std::filesystem::path& folder);

}  // namespace geom
