// Small safetensors files for tests, right or wrong on purpose.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/catalogue.hpp"

namespace geom::test {

struct StoredTensor {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string data;
};

/// A file of exactly this header text and these data, whatever they say.
inline std::string safetensors_file(std::string_view header, std::string_view data) {
    std::string file;
    for (int i = 0; i < 8; ++i) file += static_cast<char>((header.size() >> (8 * i)) & 0xffU);
    return file.append(header).append(data);
}

/// A correct file, tensors in the order given.
inline std::string safetensors_file(const std::vector<StoredTensor>& tensors) {
    std::string header = R"({"__metadata__":{"format":"pt"})", data;
    for (const StoredTensor& tensor : tensors) {
        header +=
            fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.name, tensor.dtype,
                        fmt::join(tensor.shape, ","), data.size(), data.size() + tensor.data.size());
        data += tensor.data;
    }
    return safetensors_file(header + "}", data);
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw std::runtime_error("cannot write " + path.string());
}

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Bytes [offset, offset + size) of a file.
inline std::string read_bytes(const std::filesystem::path& path, std::int64_t offset, std::int64_t size) {
    std::ifstream file(path, std::ios::binary);
    std::string bytes(static_cast<std::size_t>(size), '\0');
    file.seekg(offset).read(bytes.data(), size);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return bytes;
}

/// Every tensor of a checkpoint folder, with its data.
inline std::vector<StoredTensor> read_tensors(const std::filesystem::path& folder) {
    const Catalogue catalogue = Catalogue::open(folder, folder);
    std::vector<std::string> files;
    for (const auto& path : catalogue.files()) files.push_back(read_file(path));
    std::vector<StoredTensor> tensors;
    for (const TensorInfo& tensor : catalogue.tensors()) {
        tensors.push_back({tensor.name, std::string(name_of(tensor.dtype)), tensor.shape,
                           files[static_cast<std::size_t>(tensor.file)].substr(
                               static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes))});
    }
    return tensors;
}

/// The text of an index that puts the tensors of shards[i].second into the file shards[i].first.
using Shards = std::vector<std::pair<std::string, std::vector<StoredTensor>>>;
inline std::string index_text(const Shards& shards) {
    std::string map;
    for (const auto& [file, tensors] : shards) {
        for (const StoredTensor& tensor : tensors) {
            map += fmt::format(R"({}"{}":"{}")", map.empty() ? "" : ",\n", tensor.name, file);
        }
    }
    return "{\"metadata\":{},\"weight_map\":{" + map + "}}\n";
}

/// Writes shards and their index.
inline void write_shards(const std::filesystem::path& folder, const Shards& shards) {
    for (const auto& [file, tensors] : shards) write_file(folder / file, safetensors_file(tensors));
    write_file(folder / "model.safetensors.index.json", index_text(shards));
}

}  // namespace geom::test
