// Token ids that another program made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace geom {

/// An HDF5 file (known by its first bytes) with a one-dimensional dataset of integers, the one named token_ids in any
/// group or else the only one; or a text with one integer a line, blank lines aside.
/// Throws Error(input) with the file and the line or the dataset: nothing to read, what is no integer, an id that is
/// not in [0, vocabulary).
std::vector<std::int32_t> read_token_ids(const std::filesystem::path& file, std::int64_t vocabulary);

}  // namespace geom
