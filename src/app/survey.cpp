#include "app/survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "core/progress.hpp"
#include "stream/layer_stream.hpp"

namespace geom {

std::vector<const Measure*> chosen_measures(const RunOptions& options) {
    std::vector<const Measure*> chosen;
    for (const Measure& measure : measures()) {
        const bool named = std::find(options.measures.begin(), options.measures.end(), measure.name) != options.measures.end();
        if (options.measures.empty() || named) chosen.push_back(&measure);
    }
    return chosen;
}

Range chosen_layers(const RunOptions& options, const ModelConfig& config) {
    const Range layers = options.layers.value_or(Range{0, config.layers});
    if (layers.end > config.layers) {
        throw Error(ExitCode::usage, fmt::format("--layers {}:{}: the model has {} layers", layers.begin, layers.end, config.layers));
    }
    return layers;
}

std::vector<WeightFamily> needed_weights(const std::vector<const Measure*>& measures) {
    std::set<WeightFamily> families;
    for (const Measure* measure : measures) families.insert(measure->needs.begin(), measure->needs.end());
    return {families.begin(), families.end()};
}

LayerPart part_of(WeightFamily family) {
    switch (family) {
        case WeightFamily::gate_proj: return LayerPart::gate;
        case WeightFamily::up_proj: return LayerPart::up;
        case WeightFamily::down_proj: return LayerPart::down;
        default: return LayerPart::attention;
    }
}

DType operator_dtype(const Checkpoint& checkpoint, Range layers) {
    DType widest = DType::bf16;
    for (std::int64_t layer = layers.begin; layer < layers.end; ++layer) {
        for (const WeightFamily family : {WeightFamily::q_proj, WeightFamily::k_proj}) {
            const DType dtype = memory_dtype(checkpoint.weight(family, layer).dtype);
            if (dtype == DType::f64 || widest == DType::f64) {
                widest = DType::f64;
            } else if (dtype != DType::bf16) {
                widest = DType::f32;
            }
        }
    }
    return widest;
}

Schema make_schema(const ModelConfig& config, Range layers, const MeasureSettings& settings,
                   const std::vector<const Measure*>& measures) {
    Schema schema;
    schema.scales = shared_scales(config, layers, settings);
    for (const Measure* measure : measures) {
        for (Variable& variable : measure->variables()) schema.variables.push_back(std::move(variable));
    }
    return schema;
}

PlanInput plan_input(const Checkpoint& checkpoint, Range layers, const std::vector<const Measure*>& measures,
                     const MeasureSettings& settings, const Schema& schema, const Backend& backend,
                     const HeadBlockFormat& format, const Machine& machine, int ranks) {
    const ModelConfig& config = checkpoint.config();
    PlanInput input;
    input.layers = layers.size();
    input.heads = config.heads;
    input.kv_heads = config.kv_heads;
    input.head_dim = config.head_dim;
    input.hidden = config.hidden;
    for (std::int64_t layer = layers.begin; layer < layers.end; ++layer) {
        std::array<std::int64_t, layer_part_count> bytes{};
        LayerRequest request{layer, {}};
        for (const WeightFamily family : needed_weights(measures)) {
            bytes[static_cast<std::size_t>(part_of(family))] += checkpoint.weight(family, layer).bytes();
            request.weights.push_back({family, {}});
        }
        input.part_bytes.push_back(bytes);
        input.layer_memory.push_back(LayerStream::buffer_bytes(checkpoint, request));
    }
    input.head_blocks = std::any_of(measures.begin(), measures.end(), [](const Measure* m) { return m->head_blocks; });
    input.block_bytes = format.bytes;
    input.stored_row_block = config.head_dim * checkpoint.weight(WeightFamily::q_proj, layers.begin).row_bytes();
    input.all_weights_in_first_pass = std::any_of(measures.begin(), measures.end(), [](const Measure* m) { return m->layer != nullptr; });
    for (std::int64_t head = 0; head < config.heads; ++head) input.pending_heads.push_back(head);
    input.ranks = ranks;
    input.budget = machine.budget;
    input.process_bytes = machine.resident;
    input.scratch_bytes = backend.tile_dots_scratch(format);
    for (const Measure* measure : measures) {
        if (measure->layer_scratch != nullptr) {
            input.layer_scratch_bytes = std::max(input.layer_scratch_bytes, measure->layer_scratch(config, settings));
        }
    }
    for (const Variable& variable : schema.variables) {
        std::int64_t bytes = size_of(variable.type);
        for (const std::int64_t length : schema.shape_of(variable)) bytes *= length;
        input.result_bytes += bytes;
        input.largest_variable = std::max(input.largest_variable, bytes);
    }
    return input;
}

namespace {

// Rows of the given heads, neighbours joined.
std::vector<Range> rows_of_heads(const std::vector<std::int64_t>& heads, std::int64_t head_dim) {
    std::vector<Range> rows;
    for (const std::int64_t head : heads) {
        if (!rows.empty() && rows.back().end == head * head_dim) {
            rows.back().end += head_dim;
        } else {
            rows.push_back({head * head_dim, (head + 1) * head_dim});
        }
    }
    return rows;
}

}  // namespace

std::vector<LayerRequest> layer_requests(const Plan& plan, std::int64_t pass, std::int64_t rank, Range layers,
                                         const std::vector<const Measure*>& measures) {
    const PlanInput& input = plan.input;
    const bool whole = !input.head_blocks || (pass == 0 && input.all_weights_in_first_pass);
    const auto q_rows = whole ? std::vector<Range>{} : rows_of_heads(plan.heads_in_pass(pass), input.head_dim);
    const auto k_rows = whole ? std::vector<Range>{} : rows_of_heads(plan.groups_in_pass(pass), input.head_dim);
    std::vector<LayerRequest> requests;
    for (const LoadItem& item : plan.ranks[static_cast<std::size_t>(rank)].loads) {
        LayerRequest request{layers.begin + item.layer, {}};
        for (const WeightFamily family : needed_weights(measures)) {
            if (!item.has(part_of(family))) continue;
            if (family == WeightFamily::q_proj) {
                request.weights.push_back({family, q_rows});
            } else if (family == WeightFamily::k_proj) {
                request.weights.push_back({family, k_rows});
            } else if (whole) {
                request.weights.push_back({family, {}});
            }
        }
        requests.push_back(std::move(request));
    }
    return requests;
}

std::string describe_model(const Checkpoint& checkpoint) {
    const ModelConfig& c = checkpoint.config();
    std::string text = fmt::format("model     {}", checkpoint.name());
    if (!checkpoint.commit().empty()) text += fmt::format("  ({} @ {})", checkpoint.revision(), checkpoint.commit().substr(0, 12));
    text += fmt::format("\n          {}: {} layers, {} query heads, {} key/value heads, head_dim {}, hidden {}, intermediate {}",
                        checkpoint.family().name, c.layers, c.heads, c.kv_heads, c.head_dim, c.hidden, c.intermediate);
    if (c.moe.experts > 0) text += fmt::format(", {} experts of {}", c.moe.experts, c.moe.intermediate);
    text += fmt::format("\n          {:.2f} G parameters, W_Q/W_K as {}", static_cast<double>(checkpoint.parameters()) * 1e-9,
                        name_of(checkpoint.weight(WeightFamily::q_proj, 0).dtype));
    std::int64_t bytes = 0;
    for (const std::int64_t size : checkpoint.file_bytes()) bytes += size;
    if (bytes > 0) text += fmt::format(", {} in {} file{}", readable_bytes(static_cast<double>(bytes)), checkpoint.files().size(), checkpoint.files().size() == 1 ? "" : "s");
    return text + "\n";
}

namespace {

std::string loads_of(const RankPlan& rank, std::int64_t first_layer) {
    if (rank.loads.empty()) return "-";
    const std::int64_t begin = first_layer + rank.loads.front().layer, end = first_layer + rank.loads.back().layer + 1;
    return fmt::format("{}:{}", begin, end);
}

std::string heads_of(const RankPlan& rank) {
    std::int64_t low = -1, high = -1;
    for (const auto& pass : rank.passes) {
        for (const GroupShare& held : pass) {
            if (low < 0) low = held.heads.front();
            high = held.heads.back() + 1;
        }
    }
    return low < 0 ? "-" : fmt::format("{}:{}", low, high);
}

}  // namespace

std::string describe_plan(const Plan& plan, const HeadBlockFormat& format) {
    const auto bytes = [](std::int64_t n) { return readable_bytes(static_cast<double>(n)); };
    std::string text = fmt::format("plan      {} rank{}, {} pass{} over the weights, {} read, {} of products ({})\n", plan.ranks.size(),
                                   plan.ranks.size() == 1 ? "" : "s", plan.passes, plan.passes == 1 ? "" : "es",
                                   bytes(plan.bytes_read()), readable_flops(static_cast<double>(plan.flops())), format.path);
    text += fmt::format("          imbalance (largest over mean): loading {:.2f}, products {:.2f}; budget {} a rank\n",
                        plan.load_imbalance(), plan.flops_imbalance(), bytes(plan.input.budget));
    text += fmt::format("{:>6} {:>10} {:>10} {:>10} {:>14} {:>10} {:>12} {:>11}\n", "rank", "layers", "heads", "reads",
                        "products", "memory", "head blocks", "in flight");
    constexpr std::size_t shown = 64;
    for (std::size_t r = 0; r < std::min(shown, plan.ranks.size()); ++r) {
        const RankPlan& rank = plan.ranks[r];
        text += fmt::format("{:>6} {:>10} {:>10} {:>10} {:>14} {:>10} {:>12} {:>11}\n", r, loads_of(rank, 0), heads_of(rank),
                            bytes(rank.bytes_read), readable_flops(static_cast<double>(rank.flops)), bytes(rank.memory.total()),
                            bytes(rank.memory.blocks), bytes(rank.memory.stream));
    }
    if (plan.ranks.size() > shown) text += fmt::format("{:>6} and {} more\n", "...", plan.ranks.size() - shown);
    const auto idle = std::count_if(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& r) { return r.loads.empty(); });
    const auto without = std::count_if(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& r) { return r.flops == 0; });
    if (idle > 0) text += fmt::format("          {} ranks load nothing: there are no more layers to divide\n", idle);
    if (without > 0) text += fmt::format("          {} ranks multiply nothing: there are no more heads to divide\n", without);
    return text;
}

}  // namespace geom
