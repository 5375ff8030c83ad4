// From what the user typed after --model to a folder with a checkpoint in it. Nothing is ever downloaded.
#pragma once

#include <filesystem>
#include <string>

namespace geom {

struct ModelFolder {
    std::filesystem::path folder;        ///< holds config.json and the shards
    std::filesystem::path allowed_root;  ///< links of the folder may lead anywhere below this
    std::string name;                    ///< a hub id, or the folder's own name
    std::string revision;                ///< as asked for ("main" by default); empty for a folder
    std::string commit;                  ///< 40 hex digits for a hub snapshot; empty for a plain folder
    std::string remedy;                  ///< what to do when files are missing, for messages: "hf download ..."
};

/// Resolves a folder or a hub id ("ORG/NAME") through HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub,
/// XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub, in this order; the first that is set decides.
/// A folder that is a snapshot of a hub cache (models--ORG--NAME/snapshots/COMMIT) counts as that model.
/// An id may be typed in another case than it is cached in, as "ID@REVISION", and with slashes at its end.
/// `revision`: empty ("main"), a branch or tag (may hold '/'), or 40 hex digits; Error(usage) for a folder.
/// Throws Error(input) that names the paths tried, the revisions present, and the command that would download it.
ModelFolder resolve_model(const std::string& model, const std::string& revision);

}  // namespace geom
