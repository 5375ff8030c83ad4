#include "app/findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "app/findings_ranks.hpp"
#include "derivations/variation_ranking.hpp"

namespace geom {

namespace {

using nlohmann::ordered_json;

double number(const ResultReader& file, const std::string& path) { return file.read(path).front(); }

std::string attribute(const ResultReader& file, const std::string& name) {
    return file.has_attribute("analysis", name) ? file.text_attribute("analysis", name) : "";
}

const char* meaning_of(const std::string& verdict) {
    if (verdict == "STRONG") return "nearly the same operators in every layer";
    if (verdict == "MEDIUM") return "much structure in common";
    if (verdict == "WEAK") return "some structure in common";
    return "no structure in common to speak of";
}

/// A cosine; of an operator that is zero there is none.
std::string cosine(double value) { return std::isnan(value) ? "none (zero)" : fmt::format("{:+.4f}", value); }

/// A pair of layers, of analysis/cos_mean.
struct LayerPair {
    std::int64_t a = -1, b = -1;
    double cos = 0.0;
};

/// The pairs of different layers with the largest and the least cosine, mean over heads; NaN left out.
std::pair<LayerPair, LayerPair> most_and_least_alike(const ResultReader& file) {
    const auto cos = file.read("analysis/cos_mean"), layers = file.read("analysis/layer");
    LayerPair most, least;
    for (std::size_t a = 0; a < layers.size(); ++a) {
        for (std::size_t b = a + 1; b < layers.size(); ++b) {
            const double value = cos[a * layers.size() + b];
            if (std::isnan(value)) continue;
            const LayerPair pair{static_cast<std::int64_t>(layers[a]), static_cast<std::int64_t>(layers[b]), value};
            if (most.a < 0 || value > most.cos) most = pair;
            if (least.a < 0 || value < least.cos) least = pair;
        }
    }
    return {most, least};
}

/// Where the largest and the least of some numbers are; NaN left out.
struct Extremes {
    std::int64_t most = -1, least = -1;

    Extremes(const std::vector<double>& values, std::int64_t without) {
        for (std::int64_t i = 0; i < std::ssize(values); ++i) {
            const auto at = static_cast<std::size_t>(i);
            if (i == without || std::isnan(values[at])) continue;
            if (most < 0 || values[at] > values[static_cast<std::size_t>(most)]) most = i;
            if (least < 0 || values[at] < values[static_cast<std::size_t>(least)]) least = i;
        }
    }
};

std::string extremes_line(const char* what, const std::vector<double>& values, const std::vector<double>& labels,
                          std::int64_t without) {
    const Extremes at(values, without);
    if (at.most < 0) return {};
    const auto value = [&](std::int64_t i) { return values[static_cast<std::size_t>(i)]; };
    const auto label = [&](std::int64_t i) {
        return labels.empty() ? static_cast<double>(i) : labels[static_cast<std::size_t>(i)];
    };
    return fmt::format("{} {:.0f} most ({:+.3f}), {} {:.0f} least ({:+.3f})", what, label(at.most), value(at.most),
                       what, label(at.least), value(at.least));
}

// The verdict and the chance it is held against, one line a thought.
std::string verdict_lines(const ResultReader& file) {
    const double mean = number(file, "analysis/mean_cos_to_anchor_others");
    const auto anchor_cos = file.read("analysis/anchor_cos"), layers = file.read("analysis/layer");
    const double anchor = number(file, "analysis/anchor"), hidden = file.number_attribute("", "hidden");
    const auto heads = static_cast<double>(file.shape("analysis/cos")[2]);
    const std::string verdict = attribute(file, "verdict");
    const auto place = std::find(layers.begin(), layers.end(), anchor) - layers.begin();
    std::string text = fmt::format(
        "gram      {}: {}, head by head: mean cosine {:+.4f} with layer {:.0f}\n"
        "          by chance 0 +- {:.1e} a head (1/D), +- {:.1e} a mean over {:.0f} heads\n",
        verdict, meaning_of(verdict), mean, anchor, 1.0 / hidden, 1.0 / hidden / std::sqrt(heads), heads);
    const auto [most, least] = most_and_least_alike(file);
    text += fmt::format("          consecutive layers {} ({} to {}), layers {:.0f} and {:.0f} {}\n",
                        cosine(number(file, "analysis/mean_cos_adjacent")),
                        cosine(number(file, "analysis/min_cos_adjacent")),
                        cosine(number(file, "analysis/max_cos_adjacent")), layers.front(), layers.back(),
                        cosine(number(file, "analysis/cos_first_last")));
    text += fmt::format("          most alike layers {} and {} ({:+.4f}), least {} and {} ({:+.4f})\n", most.a, most.b,
                        most.cos, least.a, least.b, least.cos);
    text +=
        fmt::format("          with layer {:.0f}: {}; {}\n", anchor, extremes_line("layer", anchor_cos, layers, place),
                    extremes_line("head", file.read("analysis/anchor_cos_head"), {}, -1));
    text +=
        fmt::format("          any layer as the anchor: median {:+.4f} (quartiles {:+.4f}, {:+.4f}): {}\n",
                    number(file, "analysis/mean_cos_any_anchor_median"),
                    number(file, "analysis/mean_cos_any_anchor_lower_quartile"),
                    number(file, "analysis/mean_cos_any_anchor_upper_quartile"), attribute(file, "verdict_any_anchor"));
    // Said where it differs in the digits above.
    if (file.has("analysis/mean_cos_to_anchor_others_folded")) {
        const double folded = number(file, "analysis/mean_cos_to_anchor_others_folded");
        if (fmt::format("{:+.4f}", folded) != fmt::format("{:+.4f}", mean))
            text += fmt::format("          with the input norms' weights folded in {:+.4f}: {}\n", folded,
                                attribute(file, "verdict_folded"));
    }
    if (file.has("analysis/share_beyond_two_sided")) {
        const auto layer_count = static_cast<double>(layers.size());
        text += fmt::format(
            "          {:.1f}% of the {:.0f} pairs (two layers, one head) are beyond chance, {:.1f}% beyond one "
            "rotation "
            "of the basis\n          (false discoveries held at 1%)\n",
            100.0 * number(file, "analysis/share_beyond_two_sided"), layer_count * (layer_count - 1.0) / 2.0 * heads,
            100.0 * number(file, "analysis/share_beyond_shared_basis"));
    }
    return text;
}

std::string match_lines(const ResultReader& file) {
    std::string text = fmt::format(
        "match     heads matched freely: mean |cosine| {:.4f}, by chance {:.4f} (the best of many is never 0)\n",
        number(file, "match/mean_matched_cos"), number(file, "match/mean_matched_null"));
    text += fmt::format("          {:.1f}% of them are matched with a head of another number",
                        100.0 * number(file, "match/share_moved"));
    if (file.has("analysis/mean_cos_to_anchor_others_matched"))
        text +=
            fmt::format("; with layer {:.0f} {:+.4f}: {}", number(file, "analysis/anchor"),
                        number(file, "analysis/mean_cos_to_anchor_others_matched"), attribute(file, "verdict_matched"));
    return text + "\n";
}

// Families by how little they change, as stored and after each gauge that aligns.
std::string variation_lines(const ResultReader& file) {
    const Range block = block_of(file);
    const std::vector<FamilyVariation> ranked = rank_families(file, block);
    std::string text;
    for (std::size_t i = 0; i < ranked.size();) {
        const std::string& gauge = ranked[i].gauge;
        std::size_t last = i;
        while (last + 1 < ranked.size() && ranked[last + 1].gauge == gauge) ++last;
        const FamilyVariation &least = ranked[i], &most = ranked[last];
        text +=
            fmt::format("{:<10}gauge {:<12} least {:<12} {:.3f}, most {:<12} {:.3f} (means of {} pairs)\n",
                        i == 0 ? "variation" : "", gauge, least.family, least.mean, most.family, most.mean, most.pairs);
        i = last + 1;
    }
    if (!text.empty()) {
        text += fmt::format("          distances of layers {} to {} from the next one's: 0 the same, 1.414 unrelated\n",
                            block.begin, block.end - 2);
    }
    return text;
}

std::string residual_lines(const ResultReader& file) {
    const auto layers = file.read("residual/layer");
    const auto extremes = [&](const char* name) { return extremes_line("layer", file.read(name), layers, -1); };
    std::string text = fmt::format("residual  steps ||d||/||h||: {}\n          block influence: {}\n",
                                   extremes("residual/rel_step_mean"), extremes("residual/block_influence"));
    if (const double loss = number(file, "residual/cross_entropy"); !std::isnan(loss))
        text += fmt::format("          the text's next tokens: {:.4f} nats each\n", loss);
    return text;
}

bool has_pairs(const ResultReader& file, const std::string& path) { return file.has(path) && file.shape(path)[0] > 1; }

void add_extremes(ordered_json& object, const ResultReader& file) {
    const auto [most, least] = most_and_least_alike(file);
    for (const auto& [name, pair] : {std::pair{"most_alike", most}, std::pair{"least_alike", least}})
        object[name] = {{"layers", {pair.a, pair.b}}, {"cos", pair.cos}};
    const auto layers = file.read("analysis/layer");
    const auto anchor = std::find(layers.begin(), layers.end(), number(file, "analysis/anchor")) - layers.begin();
    const auto add = [&](const char* what, const std::vector<double>& values, const std::vector<double>& labels,
                         std::int64_t without) {
        const Extremes at(values, without);
        if (at.most < 0) return;
        for (const auto& [which, i] : {std::pair{"most", at.most}, std::pair{"least", at.least}}) {
            const auto place = static_cast<std::size_t>(i);
            const std::int64_t label = labels.empty() ? i : static_cast<std::int64_t>(labels[place]);
            object[fmt::format("anchor_{}", which)][what] = {{"number", label}, {"cos", values[place]}};
        }
    };
    add("layer", file.read("analysis/anchor_cos"), layers, anchor);
    add("head", file.read("analysis/anchor_cos_head"), {}, -1);
}

}  // namespace

std::string findings_text(const ResultReader& file) {
    std::string text;
    if (has_pairs(file, "analysis/cos")) {
        text += attribute(file, "verdict").empty() ? "gram      no cosines: operators are zero\n" : verdict_lines(file);
    } else if (file.has("analysis/cos")) {
        text += "gram      a single layer: no pairs\n";
    }
    if (has_pairs(file, "match/assignment")) text += match_lines(file);
    if (file.has("variation/residual")) text += variation_lines(file);
    if (file.has("residual/frob")) text += residual_lines(file);
    return text + rank_findings_text(file);
}

ordered_json findings_object(const ResultReader& file) {
    ordered_json object = ordered_json::object();
    for (const char* path :
         {"analysis/anchor", "analysis/mean_cos_to_anchor", "analysis/mean_cos_to_anchor_others",
          "analysis/mean_cos_any_anchor_median", "analysis/mean_cos_any_anchor_lower_quartile",
          "analysis/mean_cos_any_anchor_upper_quartile", "analysis/mean_cos_adjacent", "analysis/min_cos_adjacent",
          "analysis/max_cos_adjacent", "analysis/cos_first_last", "analysis/cos_middle_last",
          "analysis/share_beyond_two_sided", "analysis/share_beyond_shared_basis",
          "analysis/mean_cos_to_anchor_others_matched", "analysis/mean_cos_to_anchor_others_folded",
          "match/mean_matched_cos", "match/mean_matched_null", "match/share_moved"}) {
        if (!file.has(path)) continue;
        const double value = number(file, path);
        const std::string name(path);
        object[name.substr(name.find('/') + 1)] = std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
    }
    for (const char* name : {"verdict", "verdict_any_anchor", "verdict_matched", "verdict_folded"}) {
        if (!attribute(file, name).empty()) object[name] = attribute(file, name);
    }
    if (!object.empty()) object["chance_sd"] = 1.0 / file.number_attribute("", "hidden");
    if (has_pairs(file, "analysis/cos") && !attribute(file, "verdict").empty()) add_extremes(object, file);
    add_rank_findings(object, file);
    if (file.has("variation/residual")) {
        for (const FamilyVariation& found : rank_families(file, block_of(file)))
            object["variation"][found.gauge][found.family] = found.mean;
    }
    if (file.has("residual/cross_entropy")) {
        const double loss = number(file, "residual/cross_entropy");
        object["cross_entropy"] = std::isfinite(loss) ? ordered_json(loss) : ordered_json(nullptr);
    }
    return object;
}

}  // namespace geom
