// What stands for all bytes of a checkpoint without reading them: whether two ranks have opened the same one, and
// whether it is still the one that a journal or a result is of.
#pragma once

#include <string>
#include <utility>

#include "checkpoint/checkpoint.hpp"

namespace geom {

struct Fingerprint {
    /// What a faithful copy has as well, a line each: name, layers, config.json, headers; of every shard the name of
    /// its blob where a hub cache keeps it (the content's hash), else a CRC32C of fixed samples.
    std::string contents;
    /// 16 hexadecimal digits, of `contents` and, where a shard has no blob's name, of its inode and time.
    std::string digest;
};

/// Reads 16 samples of 16 KiB of every shard without a blob's name, the whole of a small one. Throws Error(input), also
/// for a shard that was changed since its header was read.
Fingerprint fingerprint_of(const Checkpoint& checkpoint);

/// The first lines in which two texts of lines differ; equal texts where there are none.
std::pair<std::string, std::string> difference_of(const std::string& a, const std::string& b);

}  // namespace geom
