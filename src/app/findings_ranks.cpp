#include "app/findings_ranks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "derivations/statistics.hpp"

namespace geom {

namespace {

using nlohmann::ordered_json;

struct RankedHead {
    double layer = 0.0;
    std::int64_t head = 0;
    double rank = 0.0;

    std::string text() const { return fmt::format("layer {:.0f} head {} ({:.1f})", layer, head, rank); }
    ordered_json object() const {
        return {{"layer", static_cast<std::int64_t>(layer)}, {"head", head}, {"eff_rank", rank}};
    }
};

/// Effective ranks of the heads whose operator is not zero.
struct HeadRanks {
    std::vector<RankedHead> heads;  ///< rising
    std::int64_t zero = 0;          ///< operators that are
    std::int64_t largest = 0;       ///< that a rank can be
    double mean = 0.0, lower = 0.0, upper = 0.0;
    std::int64_t low = 0, high = 0;  ///< beyond 1.5 interquartile ranges below and above the quartiles

    explicit HeadRanks(const ResultReader& file) {
        const auto ranks = file.read("heads/eff_rank"), layers = file.read("heads/layer");
        const std::int64_t in_layer = file.shape("heads/eff_rank")[1];
        largest = file.shape("heads/singular_values")[2];
        for (std::int64_t i = 0; i < std::ssize(ranks); ++i) {
            const double rank = ranks[static_cast<std::size_t>(i)];
            if (std::isnan(rank)) {
                ++zero;
            } else {
                heads.push_back({layers[static_cast<std::size_t>(i / in_layer)], i % in_layer, rank});
            }
        }
        std::stable_sort(heads.begin(), heads.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
        mean = mean_of(ranks);
        lower = quantile_of(ranks, 0.25);
        upper = quantile_of(ranks, 0.75);
        const double fence = 1.5 * (upper - lower);
        low = std::count_if(heads.begin(), heads.end(), [&](const auto& h) { return h.rank < lower - fence; });
        high = std::count_if(heads.begin(), heads.end(), [&](const auto& h) { return h.rank > upper + fence; });
    }
};

std::string zero_line(std::int64_t zero) {
    if (zero == 0) return {};
    return fmt::format("          {} operator{} zero, without a rank, and left out here\n", zero,
                       zero == 1 ? " is" : "s are");
}

std::string heads_text(const HeadRanks& ranks) {
    if (ranks.heads.empty()) return "heads     every operator is zero: no ranks\n";
    return fmt::format(
               "heads     effective rank {:.1f} of at most {} on average: over how many directions a head spreads\n"
               "          the middle half {:.1f} to {:.1f}; lowest {}, highest {}\n",
               ranks.mean, ranks.largest, ranks.lower, ranks.upper, ranks.heads.front().text(),
               ranks.heads.back().text()) +
           fmt::format("          {} of {} heads stand out below, {} above (1.5 quartile ranges)\n", ranks.low,
                       ranks.heads.size(), ranks.high) +
           zero_line(ranks.zero);
}

/// Mean over layers of a family's effective rank over that of independent entries, by family; NaN of nothing.
std::vector<std::pair<std::string, double>> ranks_against_chance(const ResultReader& file) {
    const auto names = file.labels("spectra/family");
    const auto ranks = file.read("spectra/eff_rank"), chance = file.read("spectra/mp_eff_rank");
    const auto layers = static_cast<std::size_t>(file.shape("spectra/eff_rank")[1]);
    std::vector<std::pair<std::string, double>> found;
    for (std::size_t f = 0; f < names.size(); ++f) {
        Mean mean;
        for (std::size_t at = f * layers; at < (f + 1) * layers; ++at) mean.add(ranks[at] / chance[at]);
        found.emplace_back(names[f], mean.value());
    }
    return found;
}

std::string spectra_text(const ResultReader& file) {
    std::string text = "spectra   effective rank, as a share of what independent entries would have:\n         ";
    for (const auto& [name, share] : ranks_against_chance(file))
        text += fmt::format(" {} {}", name, std::isnan(share) ? "zero" : fmt::format("{:.3f}", share));
    return text + "\n";
}

}  // namespace

std::string rank_findings_text(const ResultReader& file) {
    std::string text;
    if (file.has("heads/eff_rank")) text += heads_text(HeadRanks(file));
    if (file.has("spectra/eff_rank")) text += spectra_text(file);
    return text;
}

void add_rank_findings(ordered_json& object, const ResultReader& file) {
    if (file.has("heads/eff_rank")) {
        const HeadRanks ranks(file);
        ordered_json& heads = object["heads"];
        heads["zero_operators"] = ranks.zero;
        if (!ranks.heads.empty()) {
            heads["eff_rank_mean"] = ranks.mean;
            heads["eff_rank_lower_quartile"] = ranks.lower;
            heads["eff_rank_upper_quartile"] = ranks.upper;
            heads["lowest"] = ranks.heads.front().object();
            heads["highest"] = ranks.heads.back().object();
            heads["standing_out_below"] = ranks.low;
            heads["standing_out_above"] = ranks.high;
        }
    }
    if (file.has("spectra/eff_rank")) {
        for (const auto& [name, share] : ranks_against_chance(file)) {
            ordered_json& place = object["spectra"]["eff_rank_over_independent"][name];
            place = std::isnan(share) ? ordered_json(nullptr) : ordered_json(share);
        }
    }
}

}  // namespace geom
