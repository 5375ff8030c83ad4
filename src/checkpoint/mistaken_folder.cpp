#include "checkpoint/mistaken_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "checkpoint/input_file.hpp"
#include "checkpoint/json.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t largest_adapter_config = 1 << 20;

std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
        names.push_back(at->path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

/// " (its base is ...)", where the adapter names one.
std::string base_of(const fs::path& adapter_config) {
    try {
        const Json config = parse_json(read_text_file(adapter_config, largest_adapter_config), adapter_config.string());
        if (!config.is_object()) return {};
        const auto base = config.find("base_model_name_or_path");
        if (base == config.end() || !base->is_string()) return {};
        return fmt::format(" (it names {} as its base)", in_quotes(base->get_ref<const std::string&>()));
    } catch (const Error&) {  // what it is is known without it
        return {};
    }
}

}  // namespace

std::string what_it_is_instead(const fs::path& folder) {
    const std::vector<std::string> names = names_in(folder);
    const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
    if (has("adapter_config.json")) {
        return fmt::format(
            "holds an adapter (PEFT), which is a change to a model and not one{}; merge it into its base "
            "(merge_and_unload, save_pretrained) and give the folder of that, or give the base",
            base_of(folder / "adapter_config.json"));
    }
    const auto gguf =
        std::find_if(names.begin(), names.end(), [](const std::string& name) { return name.ends_with(".gguf"); });
    if (gguf != names.end()) {
        return fmt::format(
            "holds {}, and GGUF files are not read; give the original model in safetensors, of which "
            "they were made",
            in_quotes(*gguf));
    }
    if (has("snapshots") && has("refs")) {
        std::vector<std::string> snapshots = names_in(folder / "snapshots");
        snapshots.resize(std::min<std::size_t>(snapshots.size(), 5));
        for (std::string& name : snapshots) name = (folder / "snapshots" / name).string();
        return fmt::format(
            "is a model's folder of the hub cache, which holds its snapshots; give its id (ORG/NAME), or "
            "one of them: {}",
            snapshots.empty() ? "there are none" : fmt::format("{}", fmt::join(snapshots, ", ")));
    }
    return {};
}

}  // namespace geom
