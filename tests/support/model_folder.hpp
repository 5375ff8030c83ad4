// Small checkpoints for tests: a config and tensors written as a model folder.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "support/safetensors_writer.hpp"

namespace geom::test {

/// config.json and the tensors, dealt out over `shards` files in turn.
inline void write_model(const std::filesystem::path& folder, const nlohmann::json& config,
                        const std::vector<StoredTensor>& tensors, std::size_t shards = 1) {
    std::filesystem::create_directories(folder);
    write_file(folder / "config.json", config.dump(2));
    if (shards == 1) {
        write_file(folder / "model.safetensors", safetensors_file(tensors));
        return;
    }
    Shards files(shards);
    for (std::size_t i = 0; i < shards; ++i) files[i].first = fmt::format("model-{}.safetensors", i);
    for (std::size_t i = 0; i < tensors.size(); ++i) files[i % shards].second.push_back(tensors[i]);
    write_shards(folder, files);
}

/// The bytes of a weight that comes from a file.
inline std::string stored_bytes(const Checkpoint& checkpoint, const Weight& weight) {
    const auto& source = std::get<FileSource>(weight.source);
    return read_bytes(checkpoint.files()[static_cast<std::size_t>(source.file)], source.offset, weight.bytes());
}

}  // namespace geom::test
