// `geom-mpi synth SHAPE DIR`: list of tensors -> shards -> files under temporary names -> final names.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "checkpoint/families.hpp"
#include "checkpoint/synthetic.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t chunk_bytes = std::int64_t{4} << 20;  // what is in memory of a tensor at any time

struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t elements = 0;
    SyntheticSource source;
};

/// Tensors [first, last) of the list; `bytes` of weights behind `header`.
struct Shard {
    std::string file;
    std::size_t first = 0;
    std::size_t last = 0;
    std::int64_t bytes = 0;
    std::string header;
};

// ---- what the checkpoint holds

class TensorList {
public:
    explicit TensorList(const SyntheticModel& model) : model_(model), family_(model_family(model.family)) {
        add(WeightFamily::embed_tokens, -1);
        for (std::int64_t layer = 0; layer < model.config.layers; ++layer) add_layer(layer);
        add(WeightFamily::final_norm, -1);
        if (!model.config.tied_head) add(WeightFamily::lm_head, -1);
    }
    std::vector<Tensor> take() { return std::move(tensors_); }

private:
    void add_layer(std::int64_t layer) {
        using enum WeightFamily;
        for (const WeightFamily weight : {input_ln, q_proj, k_proj, v_proj, o_proj, post_attn_ln}) add(weight, layer);
        if (family_.qkv_bias)
            for (const WeightFamily weight : {q_bias, k_bias, v_bias}) add(weight, layer);
        if (family_.qk_norm)
            for (const WeightFamily weight : {q_norm, k_norm}) add(weight, layer);
        const bool mixture = model_.config.layer_has_experts(layer);
        if (mixture) add(router, layer);
        for (std::int64_t expert = mixture ? 0 : -1; expert < (mixture ? model_.config.moe.experts : 0); ++expert)
            for (const WeightFamily weight : {gate_proj, up_proj, down_proj}) add(weight, layer, expert);
    }

    void add(WeightFamily weight, std::int64_t layer, std::int64_t expert = -1) {
        const auto [rows, cols] = shape_of(model_.config, weight, expert);
        Tensor tensor;
        tensor.name = place_of(family_, model_.config, weight, layer, expert).tensor;
        tensor.source = synthetic_source(model_, weight, tensor.name, layer, 0);
        tensor.elements = rows * cols;
        // norms and biases are one row, and stored as vectors
        tensor.shape = tensor.source.is_constant ? std::vector<std::int64_t>{tensor.elements}
                                                 : std::vector<std::int64_t>{rows, cols};
        tensors_.push_back(std::move(tensor));
    }

    const SyntheticModel& model_;
    const ModelFamily& family_;
    std::vector<Tensor> tensors_;
};

//   u64 length of JSON │ JSON, blanks up to a multiple of 8 │ tensor 0 │ tensor 1 │ ...
//                                                           └ offset 0
std::string header_of(const Shard& shard, const std::vector<Tensor>& tensors, DType dtype) {
    Json json;
    json["__metadata__"] = {{"format", "pt"}};
    std::int64_t offset = 0;
    for (std::size_t i = shard.first; i < shard.last; ++i) {
        const std::int64_t end = offset + tensors[i].elements * size_of(dtype);
        json[tensors[i].name] = {
            {"dtype", name_of(dtype)}, {"shape", tensors[i].shape}, {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text = json.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const auto length = static_cast<std::uint64_t>(text.size());
    std::string header(sizeof length, '\0');
    std::memcpy(header.data(), &length, sizeof length);
    return header + text;
}

/// Consecutive tensors, as many as fit into `shard_bytes`, at least one.
std::vector<Shard> shards_of(const std::vector<Tensor>& tensors, DType dtype, std::int64_t shard_bytes) {
    std::vector<Shard> shards;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::int64_t bytes = tensors[i].elements * size_of(dtype);
        if (shards.empty() || shards.back().bytes + bytes > shard_bytes) shards.push_back({"", i, i, 0, ""});
        shards.back().last = i + 1;
        shards.back().bytes += bytes;
    }
    for (std::size_t k = 0; k < shards.size(); ++k) {
        shards[k].file = shards.size() == 1 ? "model.safetensors"
                                            : fmt::format("model-{:05}-of-{:05}.safetensors", k + 1, shards.size());
        shards[k].header = header_of(shards[k], tensors, dtype);
    }
    return shards;
}

std::string index_of(const std::vector<Shard>& shards, const std::vector<Tensor>& tensors) {
    Json json;
    std::int64_t total = 0;
    for (const Shard& shard : shards) total += shard.bytes;
    json["metadata"] = {{"total_size", total}};
    Json& weight_map = json["weight_map"] = Json::object();
    for (const Shard& shard : shards)
        for (std::size_t i = shard.first; i < shard.last; ++i) weight_map[tensors[i].name] = shard.file;
    return json.dump(2) + "\n";
}

// ---- files

[[noreturn]] void fail(const std::string& action, const fs::path& path, int error) {
    throw Error(ExitCode::output, fmt::format("{} {}: {}", action, path.string(), std::strerror(error)));
}

/// A file opened for writing. close() reports what a buffered write may only report late; the destructor does not.
class OutputFile {
public:
    explicit OutputFile(fs::path path) : path_(std::move(path)) {
        descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor_ < 0) fail("cannot create", path_, errno);
    }
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    ~OutputFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }

    void write(const void* data, std::size_t bytes) {
        const char* from = static_cast<const char*>(data);
        while (bytes > 0) {
            const ssize_t written = ::write(descriptor_, from, bytes);
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) fail("cannot write", path_, errno);
            from += written;
            bytes -= static_cast<std::size_t>(written);
        }
    }

    void close() {
        if (::fsync(descriptor_) != 0) fail("cannot write to disk", path_, errno);
        if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot close", path_, errno);
    }

private:
    fs::path path_;
    int descriptor_ = -1;
};

/// The files of a folder that appear together: written under temporary names, renamed by publish(). Without publish()
/// the destructor removes what was written, and the folder when it was made here.
class NewFolder {
public:
    explicit NewFolder(fs::path path) : path_(std::move(path)) {
        std::error_code error;
        if (fs::exists(path_, error)) {
            const bool usable = fs::is_directory(path_, error) && fs::is_empty(path_, error);
            if (error)
                throw Error(ExitCode::output, fmt::format("cannot read {}: {}", path_.string(), error.message()));
            if (!usable)
                throw Error(ExitCode::output, fmt::format("{} exists and is not an empty folder: name another one or "
                                                          "remove it first",
                                                          path_.string()));
            return;
        }
        made_ = fs::create_directories(path_, error);
        if (error)
            throw Error(ExitCode::output,
                        fmt::format("cannot make the folder {}: {}", path_.string(), error.message()));
    }
    NewFolder(const NewFolder&) = delete;
    NewFolder& operator=(const NewFolder&) = delete;
    ~NewFolder() {
        if (published_) return;
        std::error_code ignored;
        for (const std::string& name : names_) fs::remove(temporary(name), ignored);
        for (std::size_t i = 0; i < renamed_; ++i) fs::remove(path_ / names_[i], ignored);
        if (made_) fs::remove(path_, ignored);
    }

    /// The temporary path to write `name` to.
    fs::path add(const std::string& name) {
        names_.push_back(name);
        return temporary(name);
    }

    void publish() {
        for (; renamed_ < names_.size(); ++renamed_)
            if (::rename(temporary(names_[renamed_]).c_str(), (path_ / names_[renamed_]).c_str()) != 0)
                fail("cannot rename a finished file to", path_ / names_[renamed_], errno);
        const int folder = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0) fail("cannot open", path_, errno);
        const int failure = ::fsync(folder) == 0 ? 0 : errno;
        ::close(folder);
        // EINVAL: a file system that has no fsync of folders
        if (failure != 0 && failure != EINVAL) fail("cannot write to disk", path_, failure);
        published_ = true;
    }

private:
    fs::path temporary(const std::string& name) const { return path_ / fmt::format(".{}.tmp.{}", name, ::getpid()); }

    fs::path path_;
    std::vector<std::string> names_;
    std::size_t renamed_ = 0;
    bool made_ = false;
    bool published_ = false;
};

void check_space(const fs::path& folder, std::int64_t bytes) {
    std::error_code error;
    const fs::space_info space = fs::space(folder, error);
    if (error) return;  // some file systems don't say; the writes will
    if (space.available >= static_cast<std::uintmax_t>(bytes)) return;
    throw Error(ExitCode::output, fmt::format("{} needs {} bytes, the file system has {} free: use another disk, or "
                                              "layers=N for fewer layers",
                                              folder.string(), bytes, space.available));
}

void write_text(NewFolder& folder, const std::string& name, const std::string& text) {
    OutputFile file(folder.add(name));
    file.write(text.data(), text.size());
    file.close();
}

void write_shard(NewFolder& folder, const Shard& shard, const std::vector<Tensor>& tensors, DType dtype) {
    OutputFile file(folder.add(shard.file));
    file.write(shard.header.data(), shard.header.size());
    std::vector<std::byte> chunk(chunk_bytes);
    const std::int64_t chunk_elements = chunk_bytes / size_of(dtype);
    for (std::size_t i = shard.first; i < shard.last; ++i) {
        for (std::int64_t begin = 0; begin < tensors[i].elements; begin += chunk_elements) {
            const std::int64_t end = std::min(begin + chunk_elements, tensors[i].elements);
            generate(tensors[i].source, dtype, begin, end, chunk.data());
            file.write(chunk.data(), static_cast<std::size_t>((end - begin) * size_of(dtype)));
        }
    }
    file.close();
}

}  // namespace

void write_synthetic_checkpoint(const SyntheticModel& model, const std::filesystem::path& folder,
                                std::int64_t shard_bytes) {
    const std::vector<Tensor> tensors = TensorList(model).take();
    const std::vector<Shard> shards = shards_of(tensors, model.dtype, shard_bytes);
    const std::string index = shards.size() > 1 ? index_of(shards, tensors) : "";

    auto bytes = static_cast<std::int64_t>(index.size() + model.config.text.size());
    for (const Shard& shard : shards) bytes += static_cast<std::int64_t>(shard.header.size()) + shard.bytes;

    NewFolder files(folder);
    check_space(folder, bytes);
    for (const Shard& shard : shards) write_shard(files, shard, tensors, model.dtype);
    if (shards.size() > 1) write_text(files, "model.safetensors.index.json", index);
    write_text(files, "config.json", model.config.text);
    files.publish();
}

}  // namespace geom
