// Tables of matched heads: from group match, a pair of layers at a time.
#include <fmt/format.h>

#include <cmath>

#include "app/analyze_tables.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Rows of pairs of layers that match knows.
class MatchedPairs {
public:
    MatchedPairs(const ResultView& view, std::string name, std::string title)
        : view_(view),
          layers_(view.layers("match")),
          heads_(view.shape("match/matched_cos")[2]),
          nulls_(view.all("match/matched_null")),
          excess_(view.all("match/matched_excess")),
          same_head_(view.has("analysis/cos")) {
        table_ = {std::move(name),
                  std::move(title),
                  note(),
                  {{"layer"}, {"layer_b"}, {"matched_abs_cos"}, {"matched_null"}, {"matched_excess"}, {"moved"}},
                  {}};
        table_.keys = 2;
        if (same_head_) table_.columns.push_back({"same_head_abs_cos"});
    }

    std::int64_t layers() const { return std::ssize(layers_); }

    void add(std::int64_t l, std::int64_t other) {
        const auto assignment = of_heads("match/assignment", l, other);
        std::int64_t moved = 0;
        for (std::int64_t h = 0; h < heads_; ++h) moved += assignment[at(h)] == static_cast<double>(h) ? 0 : 1;
        const std::size_t pair = at(l * layers() + other);
        std::vector<Cell> row{layers_[at(l)], layers_[at(other)], mean_size(of_heads("match/matched_cos", l, other)),
                              nulls_[pair],   excess_[pair],      moved};
        if (same_head_) row.emplace_back(mean_size(of_heads("analysis/cos", l, other)));
        table_.rows.push_back(std::move(row));
    }

    Table take() { return std::move(table_); }

private:
    std::string note() const {
        std::string text = fmt::format(
            "Each of the {} heads of a layer is matched with one of the other layer, for the largest sum of |cos|, "
            "heads "
            "that share a key head kept together. matched_abs_cos: mean |cos| of matched heads; matched_null: what it "
            "is "
            "when nothing relates the layers, a maximum being biased upward; matched_excess: the difference. moved: "
            "heads "
            "matched with a head of another number.",
            heads_);
        if (same_head_) text += " same_head_abs_cos: mean |cos| of heads of the same number.";
        return text;
    }

    std::vector<double> of_heads(const std::string& path, std::int64_t l, std::int64_t other) const {
        return view_.box(path, {l, other, 0}, {1, 1, heads_});
    }

    static double mean_size(const std::vector<double>& cosines) {
        Mean mean;
        for (const double cosine : cosines) mean.add(std::abs(cosine));
        return mean.value();
    }

    const ResultView& view_;
    std::vector<std::int64_t> layers_;
    std::int64_t heads_;
    std::vector<double> nulls_, excess_;  // [L, L]
    bool same_head_;
    Table table_;
};

bool has_pairs(const ResultView& view) { return view.has("match/matched_excess") && view.layers("match").size() > 1; }

}  // namespace

std::optional<Table> matched_to_anchor(const ResultView& view) {
    if (!has_pairs(view) || !view.has("analysis/anchor")) return {};
    const std::int64_t anchor = view.anchor();
    MatchedPairs pairs(
        view, "matched_to_anchor",
        fmt::format("Heads matched with those of layer {}, the anchor", view.layers("match")[at(anchor)]));
    for (std::int64_t l = 0; l < pairs.layers(); ++l) {
        if (l != anchor) pairs.add(l, anchor);
    }
    return pairs.take();
}

std::optional<Table> matched_adjacent(const ResultView& view) {
    if (!has_pairs(view)) return {};
    MatchedPairs pairs(view, "matched_adjacent", "Matched heads of consecutive layers");
    for (std::int64_t l = 0; l + 1 < pairs.layers(); ++l) pairs.add(l, l + 1);
    return pairs.take();
}

}  // namespace geom
