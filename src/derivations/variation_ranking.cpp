#include "derivations/variation_ranking.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr const char* residual = "variation/residual";

FamilyVariation summarise(const std::vector<double>& values, const std::vector<double>& layers, Range block) {
    FamilyVariation found;
    std::vector<double> within;
    for (std::size_t p = 0; p < values.size(); ++p) {
        const auto layer = static_cast<std::int64_t>(layers[p]);
        if (!block.contains(layer) || !block.contains(layer + 1) || std::isnan(values[p])) continue;
        if (within.empty() || values[p] < found.least) {
            found.least = values[p];
            found.least_pair = layer;
        }
        if (within.empty() || values[p] > found.most) {
            found.most = values[p];
            found.most_pair = layer;
        }
        within.push_back(values[p]);
    }
    found.pairs = std::ssize(within);
    found.mean = mean_of(within);
    found.sd = moments_of(within).sd;
    return found;
}

Range range_of(const std::string& text) {
    long long begin = 0, end = 0;
    if (std::sscanf(text.c_str(), "%lld:%lld", &begin, &end) != 2)
        throw Error(ExitCode::input, fmt::format("\"{}\" is no range of layers", text));
    return {begin, end};
}

}  // namespace

std::vector<FamilyVariation> rank_families(const ResultReader& file, Range block) {
    const auto shape = file.shape(residual);
    const auto gauges = file.labels("variation/gauge"), families = file.labels("variation/family");
    const auto layers = file.read("pair");
    std::vector<FamilyVariation> all;
    for (std::int64_t g = 0; g < shape[0]; ++g) {
        const auto first = all.size();
        for (std::int64_t f = 0; f < shape[1]; ++f) {
            FamilyVariation found = summarise(file.read(residual, {g, f, 0}, {1, 1, shape[2]}), layers, block);
            if (found.pairs == 0) continue;
            found.gauge = gauges[static_cast<std::size_t>(g)];
            found.family = families[static_cast<std::size_t>(f)];
            all.push_back(std::move(found));
        }
        std::stable_sort(all.begin() + static_cast<std::ptrdiff_t>(first), all.end(),
                         [](const FamilyVariation& a, const FamilyVariation& b) { return a.mean < b.mean; });
    }
    return all;
}

Range block_of(const ResultReader& file) {
    return range_of(file.text_attribute("", file.has_attribute("", "block") ? "block" : "layers"));
}

void check_block(Range block, Range layers) {
    if (block.begin >= layers.begin && block.end <= layers.end && block.size() >= 2) return;
    throw Error(ExitCode::usage,
                fmt::format("--block {}:{}: a block has two layers at least, of those looked at ({}:{})", block.begin,
                            block.end, layers.begin, layers.end));
}

}  // namespace geom
