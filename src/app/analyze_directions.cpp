// Tables of what heads share with the same head of the anchor: from group analysis, as heads gives it.
#include <fmt/format.h>

#include "app/analyze_tables.hpp"

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// "0-8"
std::string span_of(const std::vector<std::int64_t>& layers, std::int64_t begin, std::int64_t end) {
    if (begin == end) return "none";
    const std::int64_t first = layers[at(begin)], last = layers[at(end - 1)];
    return first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
}

}  // namespace

std::optional<Table> sign_agreement_by_thirds(const ResultView& view) {
    if (!view.has("analysis/sign_agreement")) return {};
    const auto layers = view.layers("analysis");
    const std::int64_t count = std::ssize(layers), third = count / 3;
    const auto leading = view.all("top_k_signs");
    const auto early = view.all("analysis/sign_agreement_early"), middle = view.all("analysis/sign_agreement_middle"),
               late = view.all("analysis/sign_agreement_late"),
               deviation = view.all("analysis/sign_agreement_chance_sd");
    Table table{
        "sign_agreement",
        fmt::format("Sign agreement with layer {} by thirds", layers[at(view.anchor())]),
        fmt::format("Share of the leading eigenvalues of g + g^T, by magnitude, whose sign is that of the same head "
                    "of the anchor: mean over heads and the layers of a third (early {}, middle {}, late {}), the "
                    "anchor left out. By chance null_mean +- null_sd for a layer, and less by sqrt(n) for n of them.",
                    span_of(layers, 0, third), span_of(layers, third, 2 * third),
                    span_of(layers, third > 0 ? 2 * third : count, count)),
        {{"leading"}, {"early"}, {"middle"}, {"late"}, {"null_mean"}, {"null_sd"}},
        {}};
    for (std::size_t k = 0; k < leading.size(); ++k) {
        table.rows.push_back({static_cast<std::int64_t>(leading[k]), early[k], middle[k], late[k], 0.5, deviation[k]});
    }
    return table;
}

std::optional<Table> angles_to_anchor(const ResultView& view) {
    if (!view.has("analysis/subspace_overlap")) return {};
    const auto layers = view.layers("analysis");
    const auto mean = view.all("analysis/angle_mean_cos"), least = view.all("analysis/angle_min_cos"),
               first = view.all("analysis/top1_overlap"), overlap = view.all("analysis/subspace_overlap"),
               chance = view.all("analysis/subspace_overlap_chance");
    Table table{
        "angles",
        fmt::format("Principal angles with layer {}", layers[at(view.anchor())]),
        fmt::format("Between the {} leading right singular directions of a head and those of the same head of the "
                    "anchor, mean over heads. angle_mean_cos, angle_min_cos: cosines of the angles; top1_overlap: "
                    "squared cosine of the first directions; subspace_overlap: sum of squared cosines. Beside the "
                    "last two what they are by chance.",
                    view.shape("heads/right_dirs")[2]),
        {{"layer"},
         {"angle_mean_cos"},
         {"angle_min_cos"},
         {"top1_overlap"},
         {"top1_null"},
         {"subspace_overlap"},
         {"subspace_null"}},
        {}};
    const double top1_null = 1.0 / static_cast<double>(view.hidden());
    for (std::size_t l = 0; l < layers.size(); ++l)
        table.rows.push_back({layers[l], mean[l], least[l], first[l], top1_null, overlap[l], chance[l]});
    return table;
}

}  // namespace geom
