// A model whose weights can be looked up: a folder, a snapshot in the hub cache, or a synthetic one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/catalogue.hpp"
#include "checkpoint/families.hpp"
#include "checkpoint/hub_cache.hpp"
#include "checkpoint/model_config.hpp"
#include "checkpoint/stored_names.hpp"
#include "checkpoint/synthetic.hpp"
#include "checkpoint/weight.hpp"

namespace geom {

class Checkpoint {
public:
    /// `model`: a folder, a hub id, or "synth:SHAPE[?...]". `revision`: hub ids only. `family`: overrides model_type
    /// for weights-only measures; empty to believe config.json. Reads config.json and headers, no weights.
    /// Throws Error(input), or Error(usage) for a malformed synth: name.
    static Checkpoint open(const std::string& model, const std::string& revision, const std::string& family);

    const std::string& name() const noexcept { return name_; }  ///< hub id, folder name or synth: name
    const std::string& revision() const noexcept { return revision_; }
    const std::string& commit() const noexcept { return commit_; }
    const ModelFolder* folder() const noexcept { return folder_ ? &*folder_ : nullptr; }  ///< none of a synthetic model
    const ModelConfig& config() const noexcept { return config_; }
    const ModelFamily& family() const noexcept { return *family_; }
    const std::vector<std::filesystem::path>& files() const noexcept;  ///< of FileSource::file
    const std::vector<FileStamp>& stamps() const noexcept;             ///< of files(), when their headers were read
    const std::vector<TensorInfo>& tensors() const noexcept;           ///< of all files, by name
    std::uint64_t seed() const noexcept { return synthetic_ ? synthetic_->seed : 0; }  ///< of a synthetic model
    std::int64_t parameters() const;  ///< elements of all floating-point tensors but f8 scales

    /// True when a model of this family and config has it (families.hpp, has_weight) and the checkpoint holds it.
    bool has(WeightFamily family, std::int64_t layer, std::int64_t expert = -1) const;

    /// Looks a weight up and checks its shape and type, and those of its scales, against the config: by headers alone.
    /// Throws Error(input) naming the tensor, what was found and what was expected.
    Weight weight(WeightFamily family, std::int64_t layer, std::int64_t expert = -1) const;

private:
    WeightPlace stored_place(WeightFamily family, std::int64_t layer, std::int64_t expert) const;
    ScaleSource scales_of(const TensorInfo& tensor) const;

    std::string name_, revision_, commit_;
    std::optional<ModelFolder> folder_;
    ModelConfig config_;
    const ModelFamily* family_ = nullptr;
    Catalogue catalogue_;  // empty for a synthetic model
    StoredNames names_;
    std::optional<SyntheticModel> synthetic_;
};

}  // namespace geom
