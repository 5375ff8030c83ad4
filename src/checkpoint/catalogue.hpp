// Every tensor of a checkpoint: name, type, shape, and where its bytes lie. Built from headers alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/input_file.hpp"
#include "core/dtype.hpp"

namespace geom {

struct TensorInfo {
    std::string name;
    DType dtype = DType::bf16;
    std::vector<std::int64_t> shape;
    std::int32_t file = 0;    ///< index into Catalogue::files()
    std::int64_t offset = 0;  ///< of the first byte, from the start of the file
    std::int64_t bytes = 0;
};

/// model.safetensors.index.json: which shard holds which tensor.
struct ShardIndex {
    std::vector<std::string> shards;                        ///< file names, sorted
    std::unordered_map<std::string, std::int32_t> tensors;  ///< name -> index into shards
};

/// Parses an index. Shard names have to be plain file names that end in .safetensors. Throws Error(input).
ShardIndex parse_shard_index(std::string_view text, const std::string& shown);

class Catalogue {
public:
    /// Reads model.safetensors, else model.safetensors.index.json and the header of every shard it names, in `folder`.
    /// `allowed_root`: links of the folder may lead anywhere below it (a hub cache keeps files as links into blobs/).
    /// Throws Error(input) with file, tensor and numbers on anything that breaks a rule of the format, on missing
    /// shards (all of them named, with `remedy`: what to do about it), on a tensor that the index puts into one shard
    /// and that is in another or in none, and on one that the index does not name.
    static Catalogue open(const std::filesystem::path& folder, const std::filesystem::path& allowed_root,
                          const std::string& remedy = "download it again");

    /// Null when there is no such tensor.
    const TensorInfo* find(std::string_view name) const;

    const std::vector<TensorInfo>& tensors() const noexcept { return tensors_; }
    const std::vector<std::filesystem::path>& files() const noexcept { return files_; }
    /// Of files(), when their headers were read.
    const std::vector<FileStamp>& stamps() const noexcept { return stamps_; }

private:
    std::vector<TensorInfo> tensors_;  // sorted by name
    std::vector<std::filesystem::path> files_;
    std::vector<FileStamp> stamps_;
};

}  // namespace geom
