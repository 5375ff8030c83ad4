// The header of one safetensors file, believed only after every rule of the format has been checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/catalogue.hpp"

namespace geom {

/// The format's own limit on the length of the JSON header.
inline constexpr std::int64_t max_safetensors_header = 100'000'000;

/// Parses a header. `prefix` are the first bytes of the file: at least min(file_bytes, 8 + header length) of them, or
/// fewer when the length field alone already breaks a rule; `file_bytes` is the size of the whole file; `shown` names
/// it. Returned offsets count from the start of the file; `file` is 0. Checked: length against limit and file, JSON
/// with unique keys and bounded depth, dtype known, shape without overflow and equal to the byte range, ranges gapless,
/// without overlap, from 0 to the end of the file. Misaligned data are fine. Throws Error(input).
std::vector<TensorInfo> parse_safetensors_header(std::string_view prefix, std::int64_t file_bytes,
                                                 const std::string& shown);

/// Opens `path` and reads its header only (two reads); `stamp` is the file's from then. Throws Error(input).
std::vector<TensorInfo> read_safetensors_header(const std::string& path, FileStamp& stamp);

}  // namespace geom
