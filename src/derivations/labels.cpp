#include "derivations/labels.hpp"

#include <algorithm>
#include <vector>

namespace geom {

namespace {

bool has_heads(const Schema& present) {
    return std::any_of(present.scales.begin(), present.scales.end(),
                       [](const Scale& scale) { return scale.path() == "head"; });
}

Schema declare_labels(const Schema& present) {
    if (!has_heads(present)) return {};
    return {{},
            {{"",
              "kv_head",
              {"head"},
              ValueType::i32,
              "key/value head that the query head shares with its group",
              "1",
              ""}}};
}

void compute_labels(const DerivationContext& context) {
    const std::int64_t index = context.schema.find("kv_head");
    if (index < 0) return;
    const auto group = static_cast<std::int32_t>(context.file.number_attribute("", "group_size"));
    const Variable& variable = context.schema.variables[static_cast<std::size_t>(index)];
    std::vector<std::int32_t> keys(static_cast<std::size_t>(context.schema.shape_of(variable)[0]));
    for (std::size_t head = 0; head < keys.size(); ++head) keys[head] = static_cast<std::int32_t>(head) / group;
    context.emit(whole_slab(context.schema, "kv_head", keys));
}

}  // namespace

Derivation labels_derivation() { return {"labels", &declare_labels, &compute_labels}; }

}  // namespace geom
