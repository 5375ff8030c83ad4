#include "app/result_view.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/error.hpp"
#include "derivations/analysis.hpp"
#include "derivations/variation_ranking.hpp"

namespace geom {

namespace {

template <class T>
std::vector<double> numbers_as(const Slab& slab) {
    std::vector<T> values(slab.data.size() / sizeof(T));
    std::memcpy(values.data(), slab.data.data(), slab.data.size());
    return {values.begin(), values.end()};
}

std::vector<double> numbers_of(const Slab& slab, ValueType type) {
    switch (type) {
        case ValueType::f64:
            return numbers_as<double>(slab);
        case ValueType::f32:
            return numbers_as<float>(slab);
        case ValueType::i32:
            return numbers_as<std::int32_t>(slab);
    }
    throw Error(ExitCode::internal, "an unknown value type");
}

// The file's, and what a file of an earlier version does not have.
Schema schema_of(const ResultReader& file) {
    Schema schema = file.schema();
    Schema more = analysis_derivation().declare(schema);
    std::erase_if(more.variables, [&](const Variable& variable) { return schema.find(variable.path()) >= 0; });
    std::erase_if(more.scales, [&](const Scale& scale) { return file.has(scale.path()); });
    schema.add(std::move(more));
    return schema;
}

}  // namespace

void ResultView::take_anchor(std::int64_t anchor) {
    if (!file_.has("analysis/anchor")) {
        throw Error(ExitCode::usage,
                    fmt::format("--anchor {}: this result has no analysis, which needs gram, heads or match", anchor));
    }
    const Schema schema = schema_of(file_);
    derived_.clear();
    words_.clear();
    analyse_anchor(
        {file_,
         schema,
         {anchor},
         [&](const Slab& slab) {
             const Variable& variable = schema.variables[static_cast<std::size_t>(slab.variable)];
             if (slab.count != schema.shape_of(variable))
                 throw Error(ExitCode::internal, variable.path() + " was not derived as a whole");
             derived_[variable.path()] = numbers_of(slab, variable.type);
         },
         [&](const Attribute& attribute) { words_[attribute.name] = std::get<std::string>(attribute.value); }});
    other_anchor_ = true;
}

void ResultView::take_head(HeadName head) {
    const auto refuse = [head](const std::string& reason) {
        throw Error(ExitCode::usage, fmt::format("--head {}:{}: {}", head.layer, head.head, reason));
    };
    if (!file_.has("heads/singular_values")) refuse("this result has no measure heads");
    const auto numbers = layers("heads");
    const std::int64_t heads = file_.shape("heads/singular_values")[1];
    if (numbers.empty()) refuse("no layer has heads");
    if (std::find(numbers.begin(), numbers.end(), head.layer) == numbers.end()) {
        refuse(fmt::format("no layer of that number has heads in this result; there are {}, from {} to {}",
                           numbers.size(), numbers.front(), numbers.back()));
    }
    if (head.head < 0 || head.head >= heads) refuse(fmt::format("heads are 0 to {}", heads - 1));
    head_ = head;
}

void ResultView::take_block(Range block) {
    if (!file_.has("variation/residual")) {
        throw Error(ExitCode::usage,
                    fmt::format("--block {}:{}: this result has no measure variation", block.begin, block.end));
    }
    check_block(block, parse_range("layers", file_.text_attribute("", "layers")));
    block_ = block;
}

bool ResultView::has(const std::string& path) const { return derived_.contains(path) || file_.has(path); }

std::vector<double> ResultView::all(const std::string& path) const {
    const auto derived = derived_.find(path);
    return derived == derived_.end() ? file_.read(path) : derived->second;
}

std::string ResultView::word(const std::string& name) const {
    if (!other_anchor_) return file_.has_attribute("analysis", name) ? file_.text_attribute("analysis", name) : "";
    const auto found = words_.find(name);
    return found == words_.end() ? "" : found->second;
}

std::vector<std::int64_t> ResultView::layers(const std::string& group) const {
    const std::string own = group + "/layer";
    const auto numbers = file_.read(file_.has(own) ? own : "layer");
    return {numbers.begin(), numbers.end()};
}

std::int64_t ResultView::anchor() const {
    const auto numbers = layers("analysis");
    const auto found = std::find(numbers.begin(), numbers.end(), static_cast<std::int64_t>(number("analysis/anchor")));
    if (found == numbers.end()) throw Error(ExitCode::input, "analysis/anchor names no layer of analysis/layer");
    return found - numbers.begin();
}

Range ResultView::block() const { return block_ ? *block_ : block_of(file_); }

HeadName ResultView::head() const {
    if (head_) return *head_;
    const auto numbers = layers("heads");
    return {numbers[numbers.size() / 2], 0};
}

}  // namespace geom
