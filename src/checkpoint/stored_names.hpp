// Under which names a checkpoint holds what its family calls "model.layers.0. ...": a base model is saved without the
// prefix, and the language model inside one that also sees has a longer one.
#pragma once

#include <string>

#include "checkpoint/catalogue.hpp"

namespace geom {

class StoredNames {
public:
    StoredNames() = default;  ///< as families say

    /// Recognised by what the names of layer 0 begin with; as families say when nothing is.
    explicit StoredNames(const Catalogue& catalogue);

    /// The name in the file of a tensor that `place_of` names.
    std::string operator()(const std::string& name) const;

private:
    std::string model_ = "model.";  // what stands for "model."
    std::string head_;              // what stands before "lm_head."
};

}  // namespace geom
