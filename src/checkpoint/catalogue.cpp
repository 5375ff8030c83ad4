#include "checkpoint/catalogue.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/input_file.hpp"
#include "checkpoint/json.hpp"
#include "checkpoint/mistaken_folder.hpp"
#include "checkpoint/safetensors.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

namespace fs = std::filesystem;

constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";
constexpr std::int64_t largest_index = 100'000'000;

[[noreturn]] void fail(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, shown + ": " + reason);
}

/// Also true for a link that leads nowhere, which is a partial download and no reason to look for something else.
bool is_there(const fs::path& path) {
    std::error_code error;
    return fs::exists(fs::symlink_status(path, error));
}

/// A name that cannot lead out of the folder the index is in.
bool is_plain_shard_name(std::string_view name) {
    constexpr std::string_view ending = ".safetensors";
    if (name.size() <= ending.size() || name.size() > 255 || !name.ends_with(ending)) return false;
    if (name.front() == '.' || name.find("..") != std::string_view::npos) return false;
    return std::none_of(name.begin(), name.end(),
                        [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < ' '; });
}

void check_weight_map(const Json& map, const std::string& shown) {
    if (!map.is_object()) fail(shown, fmt::format("'weight_map' is {}, but has to be an object", kind_of(map)));
    for (const auto& [tensor, shard] : map.items()) {
        if (!shard.is_string()) {
            fail(shown, fmt::format("tensor {}: its shard is {}, but has to be a file name", in_quotes(tensor),
                                    kind_of(shard)));
        }
        if (is_plain_shard_name(shard.get_ref<const std::string&>())) continue;
        fail(shown,
             fmt::format("tensor {}: its shard {} has to be a plain file name that ends in .safetensors, without "
                         "a path; the index is damaged or malicious",
                         in_quotes(tensor), in_quotes(shard.get_ref<const std::string&>())));
    }
}

void check_all_present(const ShardIndex& index, const fs::path& folder, const std::string& remedy) {
    std::vector<std::string> missing;
    for (const std::string& shard : index.shards) {
        std::error_code error;
        if (!fs::exists(folder / shard, error)) missing.push_back(shard);
    }
    if (missing.empty()) return;
    fail(folder.string(),
         fmt::format("{} of the {} shards that {} names are missing: {}; the download is partial; {}", missing.size(),
                     index.shards.size(), index_name, fmt::join(missing, ", "), remedy));
}

[[noreturn]] void fail_without_weights(const fs::path& folder, const std::string& remedy) {
    if (const std::string instead = what_it_is_instead(folder); !instead.empty()) fail(folder.string(), instead);
    for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"}) {
        if (!is_there(folder / other)) continue;
        fail(folder.string(),
             fmt::format("holds {}, but neither {} nor {}; only safetensors are read: convert the model, "
                         "or download a revision that has them",
                         other, single_name, index_name));
    }
    fail(folder.string(), fmt::format("holds neither {} nor {}; {}", single_name, index_name, remedy));
}

/// Demands that a shard holds only what the index says it holds.
void check_against_index(const std::vector<TensorInfo>& tensors, const ShardIndex& index, std::int32_t shard,
                         const fs::path& path) {
    for (const TensorInfo& tensor : tensors) {
        const auto at = index.tensors.find(tensor.name);
        if (at != index.tensors.end() && at->second == shard) continue;
        const std::string said = at == index.tensors.end()
                                     ? "does not name it"
                                     : "says it is in " + index.shards[static_cast<std::size_t>(at->second)];
        fail(path.string(), fmt::format("holds tensor {}, but {} {}; shards and index are of different downloads",
                                        in_quotes(tensor.name), index_name, said));
    }
}

}  // namespace

ShardIndex parse_shard_index(std::string_view text, const std::string& shown) {
    Json map;
    parse_json_object(text, shown, [&](const std::string& name, const Json& value) {
        if (name == "weight_map") map = value;
    });
    if (map.is_null()) fail(shown, "'weight_map' is missing; the index is damaged");
    check_weight_map(map, shown);
    if (map.empty()) fail(shown, "'weight_map' is empty; the index is damaged");

    ShardIndex index;
    for (const Json& shard : map) index.shards.push_back(shard.get_ref<const std::string&>());
    std::sort(index.shards.begin(), index.shards.end());
    index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());
    for (const auto& [tensor, shard] : map.items()) {
        const auto at = std::lower_bound(index.shards.begin(), index.shards.end(), shard.get_ref<const std::string&>());
        index.tensors.emplace(tensor, static_cast<std::int32_t>(at - index.shards.begin()));
    }
    return index;
}

Catalogue Catalogue::open(const fs::path& folder, const fs::path& allowed_root, const std::string& remedy) {
    ShardIndex index;
    const bool single = is_there(folder / single_name);
    if (single) {
        index.shards.emplace_back(single_name);
    } else if (is_there(folder / index_name)) {
        check_inside(folder / index_name, allowed_root);
        index = parse_shard_index(read_text_file(folder / index_name, largest_index), (folder / index_name).string());
        check_all_present(index, folder, remedy);
    } else {
        fail_without_weights(folder, remedy);
    }

    Catalogue result;
    std::int64_t all_bytes = 0;
    for (const std::string& shard : index.shards) {
        const fs::path path = folder / shard;
        check_inside(path, allowed_root);
        const auto file = static_cast<std::int32_t>(result.files_.size());
        FileStamp stamp;
        std::vector<TensorInfo> tensors = read_safetensors_header(path.string(), stamp);
        if (!single) check_against_index(tensors, index, file, path);
        if (__builtin_add_overflow(all_bytes, stamp.bytes, &all_bytes))
            fail(folder.string(), "shards of more than 2^63 bytes");
        result.files_.push_back(path);
        result.stamps_.push_back(stamp);
        for (TensorInfo& tensor : tensors) {
            tensor.file = file;
            result.tensors_.push_back(std::move(tensor));
        }
    }
    std::sort(result.tensors_.begin(), result.tensors_.end(),
              [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    for (const auto& [tensor, shard] : index.tensors) {
        if (result.find(tensor) != nullptr) continue;
        fail((folder / index.shards[static_cast<std::size_t>(shard)]).string(),
             fmt::format("lacks tensor {}, which {} says it holds; shards and index are of different downloads; {}",
                         in_quotes(tensor), index_name, remedy));
    }
    return result;
}

const TensorInfo* Catalogue::find(std::string_view name) const {
    const auto at =
        std::lower_bound(tensors_.begin(), tensors_.end(), name,
                         [](const TensorInfo& tensor, std::string_view wanted) { return tensor.name < wanted; });
    return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

}  // namespace geom
