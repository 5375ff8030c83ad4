#include "checkpoint/hub_cache.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include "checkpoint/input_file.hpp"
#include "checkpoint/json.hpp"
#include "checkpoint/mistaken_folder.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_names = 20;

[[noreturn]] void fail(const std::string& reason) { throw Error(ExitCode::input, reason); }

bool is_commit(std::string_view text) {
    return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_plain(std::string_view text, std::string_view also) {
    return std::all_of(text.begin(), text.end(), [&](unsigned char c) {
        return (c < 0x80 && std::isalnum(c) != 0) || also.find(static_cast<char>(c)) != std::string_view::npos;
    });
}

/// One part of a hub id: letters, digits, '.', '_', '-'; "--" separates the parts in the cache's folder names.
bool is_id_part(std::string_view part) {
    return !part.empty() && part.size() <= 96 && is_plain(part, "._-") && part.front() != '.' && part.front() != '-' &&
           part.find("--") == std::string_view::npos && part.find("..") == std::string_view::npos;
}

bool is_hub_id(std::string_view text) {
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) return is_id_part(text);
    return is_id_part(text.substr(0, slash)) && is_id_part(text.substr(slash + 1));
}

/// A branch, tag or commit whose file below refs/ stays below refs/.
bool is_revision(std::string_view text) {
    if (text.empty() || text.size() > 255 || !is_plain(text, "._-/+@=#") || text.front() == '-') return false;
    while (true) {
        const auto slash = text.find('/');
        const std::string_view part = text.substr(0, slash);
        if (part.empty() || part == "." || part == "..") return false;
        if (slash == std::string_view::npos) return true;
        text.remove_prefix(slash + 1);
    }
}

std::optional<fs::path> set_path(const char* variable) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') return std::nullopt;
    const std::string_view text = value;
    if (text == "~" || text.starts_with("~/")) {
        if (const char* home = std::getenv("HOME"); home != nullptr)
            return fs::path(home) / text.substr(text == "~" ? 1 : 2);
    }
    return fs::path(text);
}

/// The cache's folder, and in words why this one.
struct CacheFolder {
    fs::path path;
    std::string because;
};

CacheFolder cache_folder() {
    if (const auto path = set_path("HF_HUB_CACHE")) return {*path, "HF_HUB_CACHE"};
    if (const auto path = set_path("HUGGINGFACE_HUB_CACHE")) return {*path, "HUGGINGFACE_HUB_CACHE"};
    if (const auto path = set_path("HF_HOME")) return {*path / "hub", "HF_HOME"};
    if (const auto path = set_path("XDG_CACHE_HOME")) return {*path / "huggingface" / "hub", "XDG_CACHE_HOME"};
    if (const auto path = set_path("HOME")) return {*path / ".cache" / "huggingface" / "hub", "the default"};
    fail(
        "the model cache cannot be found: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set; set "
        "HF_HUB_CACHE");
}

/// What lies below `folder`, as names relative to it, sorted: files when `files`, else folders one level down.
std::vector<std::string> names_below(const fs::path& folder, bool files) {
    std::vector<std::string> names;
    std::error_code error;
    if (files) {
        for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
            if (at->is_regular_file(error)) names.push_back(at->path().lexically_relative(folder).string());
        }
    } else {
        for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
            if (at->is_directory(error)) names.push_back(at->path().filename().string());
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::string listed(std::vector<std::string> names) {
    if (names.empty()) return "none";
    const std::size_t left_out = names.size() - std::min(names.size(), most_names);
    names.resize(names.size() - left_out);
    for (std::string& name : names) name = in_quotes(name);
    return fmt::format("{}{}", fmt::join(names, ", "), left_out > 0 ? fmt::format(" and {} more", left_out) : "");
}

std::string download_command(const std::string& id, const std::string& revision) {
    return fmt::format("nothing is downloaded here; get it with: hf download {} --revision {}", id, revision);
}

/// The commit that refs/REVISION names; nothing when there is no such file.
std::optional<std::string> commit_of(const fs::path& ref) {
    std::error_code error;
    if (!fs::is_regular_file(ref, error)) return std::nullopt;
    std::string text = read_text_file(ref, 4096);
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
    if (!is_commit(text))
        fail(fmt::format("{}: holds {}, but has to hold a commit of 40 hex digits", ref.string(), in_quotes(text)));
    return text;
}

std::string folder_name_of(const std::string& id) {
    std::string name = "models--" + id;
    if (const auto slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
    return name;
}

/// The id that a folder of the cache is of; nothing when it is of none.
std::optional<std::string> id_of(std::string_view folder_name) {
    constexpr std::string_view start = "models--";
    if (!folder_name.starts_with(start)) return std::nullopt;
    std::string id(folder_name.substr(start.size()));
    if (const auto dashes = id.find("--"); dashes != std::string::npos) id.replace(dashes, 2, "/");
    if (!is_hub_id(id)) return std::nullopt;
    return id;
}

/// The hub takes ids in any case, and the cache has them as they were typed: the only one that differs in nothing else.
std::string as_cached(const std::string& id, const fs::path& cache) {
    std::error_code error;
    if (fs::is_directory(cache / folder_name_of(id), error)) return id;
    const auto lower = [](std::string text) {
        std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
        return text;
    };
    std::vector<std::string> alike;
    for (const std::string& name : names_below(cache, false)) {
        const auto other = id_of(name);
        if (other && lower(*other) == lower(id)) alike.push_back(*other);
    }
    return alike.size() == 1 ? alike.front() : id;
}

ModelFolder resolve_id(const std::string& typed, const std::string& asked) {
    const std::string revision = asked.empty() ? "main" : asked;
    if (!is_revision(revision)) {
        fail(fmt::format("revision {} is neither a branch, a tag nor a commit of 40 hex digits", in_quotes(revision)));
    }
    const CacheFolder cache = cache_folder();
    const std::string id = as_cached(typed, cache.path);
    const fs::path model = cache.path / folder_name_of(id), ref = model / "refs" / revision;

    std::vector<std::string> tried = {fs::absolute(id).string()};
    std::optional<std::string> commit;
    if (is_commit(revision)) {
        commit = revision;
    } else {
        commit = commit_of(ref);
        if (!commit) tried.push_back(ref.string());
    }
    if (commit) {
        const fs::path snapshot = model / "snapshots" / *commit;
        std::error_code error;
        if (fs::is_directory(snapshot, error)) {
            return {snapshot, model, id, revision, *commit, download_command(id, revision)};
        }
        tried.push_back(snapshot.string());
    }
    std::string choose;
    if (!names_below(model / "snapshots", false).empty()) choose = "; --revision NAME takes one of those present";
    fail(
        fmt::format("model {} (revision {}) is not on this machine: tried {} (cache folder by {}); refs present: {}; "
                    "snapshots present: {}{}; {}",
                    in_quotes(id), in_quotes(revision), fmt::join(tried, ", "), cache.because,
                    listed(names_below(model / "refs", true)), listed(names_below(model / "snapshots", false)), choose,
                    download_command(id, revision)));
}

/// models--ORG--NAME/snapshots/COMMIT: the id and commit it stands for, and links into blobs/ beside it.
void recognise_snapshot(ModelFolder& model) {
    const fs::path& folder = model.folder;
    const std::string commit = folder.filename().string();
    const fs::path root = folder.parent_path().parent_path();
    if (!is_commit(commit) || folder.parent_path().filename() != "snapshots") return;
    const auto id = id_of(root.filename().string());
    if (!id) return;
    model.allowed_root = root;
    model.name = *id;
    model.commit = commit;
    model.remedy = download_command(*id, commit);
}

ModelFolder resolve_folder(const std::string& argument) {
    std::error_code error;
    ModelFolder model;
    model.folder = fs::canonical(argument, error);
    if (error) fail(fmt::format("{}: cannot be read: {}", argument, error.message()));
    model.allowed_root = model.folder;
    model.name = model.folder.filename().string();
    if (model.name.empty()) model.name = "model";
    model.remedy = "copy or download it again";
    recognise_snapshot(model);
    return model;
}

/// "ID@REVISION" and "ID/" as people type them, apart; anything that is there is a path.
std::pair<std::string, std::string> id_and_revision(const std::string& model, const std::string& revision) {
    std::error_code error;
    if (fs::exists(model, error)) return {model, revision};
    const auto at = model.find('@');
    std::string id = model.substr(0, at);
    while (id.ends_with('/')) id.pop_back();
    if (!is_hub_id(id) || (id.find('/') == std::string::npos && at == std::string::npos)) return {model, revision};
    if (at == std::string::npos) return {id, revision};
    if (!revision.empty()) {
        throw Error(ExitCode::usage, fmt::format("{} names a revision, and so does --revision {}: give one of them",
                                                 in_quotes(model), in_quotes(revision)));
    }
    return {id, model.substr(at + 1)};
}

}  // namespace

ModelFolder resolve_model(const std::string& asked_model, const std::string& asked_revision) {
    const auto [model, revision] = id_and_revision(asked_model, asked_revision);
    if (model.empty()) fail("the model's name is empty; give a folder, a hub id (ORG/NAME) or synth:SHAPE");
    if (model.find('\0') != std::string::npos)
        fail(fmt::format("model {}: a name cannot hold a NUL byte", in_quotes(model)));
    std::error_code error;
    const auto status = fs::status(model, error);
    ModelFolder found;
    if (fs::is_directory(status)) {
        if (!revision.empty()) {
            throw Error(ExitCode::usage,
                        fmt::format("{} is a folder; --revision {} goes with a hub id only", model, revision));
        }
        found = resolve_folder(model);
    } else if (fs::exists(status)) {
        if (model.ends_with(".gguf"))
            fail(fmt::format("{}: GGUF files are not read; give the original model in safetensors", model));
        fail(fmt::format("{}: is not a folder; give the folder that holds config.json and the .safetensors files",
                         model));
    } else if (is_hub_id(model)) {
        found = resolve_id(model, revision);
    } else if (model.front() == '/' || model.front() == '.' || model.front() == '~') {
        fail(fmt::format("{}: there is no such folder", model));
    } else {
        fail(
            fmt::format("model {} is neither a folder that exists nor a hub id; an id is NAME or ORG/NAME, of letters, "
                        "digits, '.', '_' and '-'",
                        in_quotes(model)));
    }
    if (!fs::exists(fs::symlink_status(found.folder / "config.json", error))) {
        const std::string instead = what_it_is_instead(found.folder);
        if (!instead.empty()) fail(fmt::format("{}: {}", found.folder.string(), instead));
        fail(fmt::format("{}: holds no config.json; it is no model, or the download is partial; {}",
                         found.folder.string(), found.remedy));
    }
    return found;
}

}  // namespace geom
