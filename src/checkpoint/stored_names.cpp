#include "checkpoint/stored_names.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace geom {
namespace {

constexpr std::string_view usual = "model.";

struct Prefixes {
    std::string_view model, head;
};

constexpr std::array<Prefixes, 4> known = {{
    {usual, ""},
    {"", ""},
    {"model.language_model.", ""},
    {"language_model.model.", "language_model."},
}};

bool has_names_with(const Catalogue& catalogue, const std::string& prefix) {
    const auto& tensors = catalogue.tensors();  // sorted by name
    const auto at =
        std::lower_bound(tensors.begin(), tensors.end(), prefix,
                         [](const TensorInfo& tensor, const std::string& wanted) { return tensor.name < wanted; });
    return at != tensors.end() && at->name.starts_with(prefix);
}

}  // namespace

StoredNames::StoredNames(const Catalogue& catalogue) {
    for (const Prefixes& prefixes : known) {
        if (!has_names_with(catalogue, std::string(prefixes.model) + "layers.0.")) continue;
        model_ = prefixes.model;
        head_ = prefixes.head;
        return;
    }
}

std::string StoredNames::operator()(const std::string& name) const {
    return name.starts_with(usual) ? model_ + name.substr(usual.size()) : head_ + name;
}

}  // namespace geom
