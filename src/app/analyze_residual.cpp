// Tables of what layers add to the residual stream: layer by layer, and by phase.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "app/analyze_tables.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr std::array step_columns{"rel_step_mean",   "token_norm_mean",  "h_norm_mean",         "frob",
                                  "parallel_frac",   "cos_delta_h_mean", "block_influence",     "eff_rank",
                                  "eff_rank_energy", "top1_frac",        "block_capture_others"};

std::string path_of(const char* name) { return std::string("residual/") + name; }

}  // namespace

std::optional<Table> residual_by_layer(const ResultView& view) {
    if (!view.has("residual/frob")) return {};
    Table table{
        "residual_by_layer",
        "What each layer adds to the residual stream",
        "d = h' - h, the stream after a layer less the stream before it, token by token. rel_step_mean: ||d||/||h||; "
        "block_influence: 1 - cos(h, h'); eff_rank, eff_rank_energy: of all tokens' d; top1_frac: the share of its "
        "first direction; block_capture_others: how much of that direction the phase's other layers have",
        {{"layer"}, {"phase", "", Align::left}},
        {}};
    table.note += fmt::format(" (by chance {:.1e}).", 8.0 / static_cast<double>(view.hidden()));
    if (const double loss = view.number("residual/cross_entropy"); !std::isnan(loss))
        table.note += fmt::format(" Cross entropy of the text: {:.4f} nats a token.", loss);
    const auto layers = view.layers("residual");
    const auto phases = view.file().labels("residual/phase");
    const auto phase_of = view.all("residual/layer_phase");
    for (std::size_t l = 0; l < layers.size(); ++l)
        table.rows.push_back({layers[l], phases[static_cast<std::size_t>(phase_of[l])]});
    for (const char* name : step_columns) {
        if (!view.has(path_of(name))) continue;
        table.columns.push_back({name});
        const auto numbers = view.all(path_of(name));
        for (std::size_t l = 0; l < layers.size(); ++l) table.rows[l].emplace_back(numbers[l]);
    }
    return table;
}

std::optional<Table> residual_by_phase(const ResultView& view) {
    if (!view.has("residual/phase_intra_cos")) return {};
    Table table{
        "residual_by_phase",
        "Phases of the residual stream",
        "Runs of layers. intra_cos: mean |cos| of the first directions of two layers of the phase; cross_cos: of one "
        "of its layers and one outside; the other columns are means over its layers.",
        {{"phase", "", Align::left}, {"first_layer"}, {"layers"}, {"intra_cos"}, {"cross_cos"}},
        {}};
    const auto layers = view.layers("residual");
    const auto names = view.file().labels("residual/phase");
    const auto phase_of = view.all("residual/layer_phase"), intra = view.all("residual/phase_intra_cos"),
               cross = view.all("residual/phase_cross_cos");
    constexpr std::array means{"rel_step_mean", "eff_rank", "block_influence", "block_capture", "block_capture_others"};
    for (const char* name : means) table.columns.push_back({name});
    for (std::int64_t phase = 0; phase < std::ssize(names); ++phase) {
        std::vector<std::size_t> rows;
        for (std::size_t l = 0; l < layers.size(); ++l) {
            if (phase_of[l] == static_cast<double>(phase)) rows.push_back(l);
        }
        std::vector<Cell> row{names[at(phase)], layers[rows.front()], std::ssize(rows), intra[at(phase)],
                              cross[at(phase)]};
        for (const char* name : means) {
            const auto numbers = view.all(path_of(name));
            Mean mean;
            for (const std::size_t l : rows) mean.add(numbers[l]);
            row.emplace_back(mean.value());
        }
        table.rows.push_back(std::move(row));
    }
    return table;
}

}  // namespace geom
