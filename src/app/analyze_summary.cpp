// The first table: what was found, in words and in numbers, each beside its chance and its place in the file.
#include <fmt/format.h>

#include <algorithm>

#include "app/analyze_tables.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Mean and standard deviation by chance; nothing where it is not known.
struct Chance {
    Cell mean = {}, sd = {};
};

class Summary {
public:
    explicit Summary(const ResultView& view) : view_(view) {
        if (view.has("analysis/cos")) add_cosines();
        if (view.has("analysis/mean_cos_to_anchor_others_matched")) add_matched();
        if (view.has("analysis/subspace_overlap")) add_directions();
        if (view.has("heads/eff_rank")) add_ranks();
    }

    std::optional<Table> table() const {
        if (rows_.empty()) return {};
        return Table{
            "summary",
            "What was found",
            note_,
            {{"what", "", Align::left}, {"value"}, {"null_mean"}, {"null_sd"}, {"in_the_file", "", Align::left}},
            rows_};
    }

private:
    void add(const std::string& what, Cell value, const std::string& path, const Chance& chance = {}) {
        rows_.push_back({what, std::move(value), chance.mean, chance.sd, path});
    }
    void add_number(const std::string& what, const std::string& path, const Chance& chance = {}) {
        add(what, view_.number(path), path, chance);
    }
    void add_verdict(const std::string& what, const std::string& name) {
        if (const std::string verdict = view_.word(name); !verdict.empty())
            add(what, verdict, fmt::format("analysis, attribute {}", name));
    }
    void say(const std::string& sentence) { note_ += (note_.empty() ? "" : " ") + sentence; }

    std::int64_t anchor_label() const { return view_.layers("analysis")[at(view_.anchor())]; }

    void add_cosines() {
        const auto shape = view_.shape("analysis/cos");
        if (shape[0] < 2) return say("A single layer: no pairs to compare.");
        const Chance of_pair{0.0, chance_sd(view_.hidden(), shape[2])},
            of_layers{0.0, chance_sd(view_.hidden(), shape[2] * (shape[0] - 1))};
        say_verdict(std::get<double>(of_layers.sd));
        add_verdict("verdict", "verdict");
        add_number(fmt::format("mean cosine with layer {}", anchor_label()), "analysis/mean_cos_to_anchor_others",
                   of_layers);
        add_any_anchor(of_layers);
        add_number("consecutive layers: mean", "analysis/mean_cos_adjacent", of_layers);
        add_number("consecutive layers: least", "analysis/min_cos_adjacent");
        add_number("consecutive layers: largest", "analysis/max_cos_adjacent");
        add_number("first and last layer", "analysis/cos_first_last", of_pair);
        add_number("middle and last layer", "analysis/cos_middle_last", of_pair);
        add_shares(shape[0] * (shape[0] - 1) / 2 * shape[2]);
    }

    void say_verdict(double sd) {
        const double mean = view_.number("analysis/mean_cos_to_anchor_others");
        const std::string verdict = view_.word("verdict");
        if (verdict.empty()) return say("No verdict: operators are zero.");
        say(fmt::format(
            "{}: the QK operators of other layers have a mean cosine of {:.4f} with those of layer {}, same "
            "head; by chance 0 +- {:.1e}. (STRONG > 0.9, MEDIUM > 0.5, WEAK > 0.1, else REJECTED.)",
            verdict, mean, anchor_label(), sd));
    }

    void add_any_anchor(const Chance& chance) {
        add_verdict("verdict, any layer as anchor", "verdict_any_anchor");
        for (const char* which : {"lower_quartile", "median", "upper_quartile"}) {
            std::string words = which;
            std::replace(words.begin(), words.end(), '_', ' ');
            add_number(fmt::format("any layer as anchor: {}", words),
                       fmt::format("analysis/mean_cos_any_anchor_{}", which), chance);
        }
        const auto means = view_.all("analysis/mean_cos_with_others");
        const auto layers = view_.layers("analysis"), order = extremes(means, std::ssize(means));
        if (order.empty()) return;
        for (const std::int64_t l : {order.front(), order.back()}) {
            add(fmt::format("{} layer: {}", l == order.front() ? "strongest" : "weakest", layers[at(l)]), means[at(l)],
                "analysis/mean_cos_with_others", chance);
        }
    }

    void add_shares(std::int64_t pairs) {
        for (const char* null : {"two_sided", "shared_basis", "empirical"}) {
            const std::string path = fmt::format("analysis/share_beyond_{}", null);
            if (!view_.has(path)) continue;
            std::string words = null;
            std::replace(words.begin(), words.end(), '_', '-');
            add_number(fmt::format("share beyond the {} null", words), path);
            if (words == "two-sided") {
                say(
                    fmt::format("{:.1f}% of the {} pairs of layers and heads lie beyond the two-sided null "
                                "(Benjamini-Hochberg at 1%).",
                                100.0 * view_.number(path), pairs));
            }
        }
    }

    void add_matched() {
        const std::string verdict = view_.word("verdict_matched");
        if (verdict.empty()) return;  // a single layer
        const char* path = "analysis/mean_cos_to_anchor_others_matched";
        say(fmt::format("With every head matched with the one most like it: {}, {:.4f}.", verdict, view_.number(path)));
        add_verdict("verdict on matched heads", "verdict_matched");
        add_number(fmt::format("matched heads: cosine with layer {}", anchor_label()), path, {0.0, {}});
        add_number("matched heads: mean |cosine|", "match/mean_matched_cos",
                   {view_.number("match/mean_matched_null"), {}});
        add_number("matched with another head", "match/share_moved");
    }

    void add_directions() {
        const std::int64_t anchor = view_.anchor();
        auto overlap = view_.all("analysis/subspace_overlap"), chance = view_.all("analysis/subspace_overlap_chance");
        overlap[at(anchor)] = chance[at(anchor)] = not_a_number;
        add(fmt::format("subspace overlap with layer {}", anchor_label()), mean_of(overlap),
            "analysis/subspace_overlap", {mean_of(chance), {}});
    }

    void add_ranks() {
        const auto ranks = view_.all("heads/eff_rank");
        add("effective rank: mean", mean_of(ranks), "heads/eff_rank");
        add("effective rank: least", quantile_of(ranks, 0.0), "heads/eff_rank");
        add("effective rank: largest", quantile_of(ranks, 1.0), "heads/eff_rank");
    }

    const ResultView& view_;
    std::string note_;
    std::vector<std::vector<Cell>> rows_;
};

}  // namespace

std::optional<Table> summary(const ResultView& view) { return Summary(view).table(); }

}  // namespace geom
