// model.safetensors.index.json: any bytes are an Error(input) or shards whose names cannot leave the folder.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "checkpoint/catalogue.hpp"
#include "core/error.hpp"

namespace {

void demand(bool rule) {
    if (!rule) std::abort();
}

void check(const geom::ShardIndex& index) {
    demand(!index.shards.empty() && index.tensors.size() >= index.shards.size());
    for (const std::string& shard : index.shards) {
        const auto path = (std::filesystem::path("/folder") / shard).lexically_normal();
        demand(path.parent_path() == "/folder" && path.extension() == ".safetensors");
        demand(shard.find('\0') == std::string::npos);
    }
    for (const auto& [tensor, shard] : index.tensors) {
        demand(shard >= 0 && static_cast<std::size_t>(shard) < index.shards.size());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        check(geom::parse_shard_index({reinterpret_cast<const char*>(data), size}, "fuzz"));
    } catch (const geom::Error& error) {
        demand(error.code() == geom::ExitCode::input && *error.what() != '\0');
    }
    return 0;
}
