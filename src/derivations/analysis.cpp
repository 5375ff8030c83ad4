#include "derivations/analysis.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "derivations/cosines.hpp"
#include "derivations/directions.hpp"
#include "derivations/significance.hpp"

namespace geom {

namespace {

// Layers with attention are the same in gram, heads and match.
const Variable* measured_by_layer(const Schema& present) {
    for (const char* path : {"gram/gram", "gram/gram_folded", "heads/fro_sq", "match/cross_gram"}) {
        const std::int64_t index = present.find(path);
        if (index >= 0) return &present.variables[static_cast<std::size_t>(index)];
    }
    return nullptr;
}

Schema declare_analysis(const Schema& present) {
    const Variable* measured = measured_by_layer(present);
    if (measured == nullptr) return {};
    Schema schema;
    for (const char* name : {"layer", "layer_b"}) {
        Scale scale = present.scale_of(*measured, "layer");
        scale.group = "analysis";
        scale.name = name;
        scale.long_name = scale.name == "layer" ? "decoder layer" : "decoder layer, second of a pair";
        schema.scales.push_back(std::move(scale));
    }
    if (schema.scales[0].length == 0) return {};
    schema.variables = {analysis_variable("anchor", {}, "decoder layer that the others are compared with")};
    schema.variables[0].type = ValueType::i32;
    schema.add(declare_cosines(present));
    schema.add(declare_directions(present));
    schema.add(declare_significance(present));
    return schema;
}

std::int32_t number_of(const Scale& layers, std::int64_t row) {
    return layers.values.empty() ? static_cast<std::int32_t>(row) : layers.values[static_cast<std::size_t>(row)];
}

void analyse(const DerivationContext& context) {
    compute_cosines(context);
    analyse_anchor(context);
    compute_significance(context);
}

}  // namespace

std::int64_t anchor_row(const Scale& layers, std::int64_t anchor) {
    if (anchor < 0 && anchor >= -layers.length) return layers.length + anchor;
    for (std::int64_t row = 0; anchor >= 0 && row < layers.length; ++row) {
        if (number_of(layers, row) == anchor) return row;
    }
    throw Error(ExitCode::usage,
                layers.length == 0
                    ? fmt::format("--anchor {}: no layer has attention", anchor)
                    : fmt::format("--anchor {}: no layer of that number with attention is looked at; there are {}, "
                                  "from {} to {}, and -1 is the last",
                                  anchor, layers.length, number_of(layers, 0), number_of(layers, layers.length - 1)));
}

void analyse_anchor(const DerivationContext& context) {
    const Scale& layers = context.schema.scale_of(analysis_variable("", {}, ""), "layer");
    const std::int64_t anchor = anchor_row(layers, context.settings.anchor);
    emit_whole(context, "anchor", std::vector<std::int32_t>{number_of(layers, anchor)});
    compute_anchor_cosines(context, anchor);
    compute_directions(context, anchor);
}

void check_anchor(const Schema& schema, const DerivationSettings& settings) {
    const std::int64_t index = schema.find("analysis/anchor");
    if (index >= 0)
        anchor_row(schema.scale_of(schema.variables[static_cast<std::size_t>(index)], "layer"), settings.anchor);
}

Variable analysis_variable(std::string name, std::vector<std::string> dims, std::string long_name,
                           std::string missing) {
    return {"analysis", std::move(name),   std::move(dims), ValueType::f64, std::move(long_name),
            "1",        std::move(missing)};
}

Derivation analysis_derivation() { return {"analysis", &declare_analysis, &analyse}; }

}  // namespace geom
