#include "app/survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "app/choose_backend.hpp"
#include "core/crc32c.hpp"
#include "core/error.hpp"
#include "core/progress.hpp"
#include "stream/layer_stream.hpp"

namespace geom {

namespace {

/// What MPI-IO, HDF5 and the threads' stacks take beside the numbers, as measured on small runs.
constexpr std::int64_t writing_reserve = std::int64_t{8} << 20;

// The measures that were asked for, or all, in the order of measures().
std::vector<const Measure*> chosen_measures(const RunOptions& options) {
    std::vector<const Measure*> chosen;
    for (const Measure& measure : measures()) {
        const bool named =
            std::find(options.measures.begin(), options.measures.end(), measure.name) != options.measures.end();
        if (options.measures.empty() || named) chosen.push_back(&measure);
    }
    return chosen;
}

Range chosen_layers(const RunOptions& options, const ModelConfig& config) {
    const Range layers = options.layers.value_or(Range{0, config.layers});
    if (layers.end > config.layers) {
        throw Error(ExitCode::usage,
                    fmt::format("--layers {}:{}: the model has {} layers", layers.begin, layers.end, config.layers));
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
        case WeightFamily::gate_proj:
            return LayerPart::gate;
        case WeightFamily::up_proj:
            return LayerPart::up;
        case WeightFamily::down_proj:
            return LayerPart::down;
        default:
            return LayerPart::attention;
    }
}

// The widest of all W_Q and W_K: all head blocks of a run are kept in one type.
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

std::filesystem::path output_file(const RunOptions& options, const Checkpoint& checkpoint) {
    if (!options.output.empty()) return options.output;
    std::string name = checkpoint.name();
    for (std::size_t at = 0; (at = name.find_first_of("/:?&=", at)) != std::string::npos;) {
        name.replace(at, 1, name[at] == '/' ? "--" : "-");
    }
    return name + ".geom.h5";
}

// Measures with a layer part that this layer (counted from the first of the run) still owes.
bool owes_layer_units(const Survey& survey, const std::set<Unit>& done, std::int64_t row) {
    return std::any_of(survey.measures.begin(), survey.measures.end(), [&](const Measure* measure) {
        return measure->layer != nullptr && !done.contains({std::string(measure->name), row});
    });
}

// Query heads that a measure with a group part still owes.
std::vector<std::int64_t> pending_heads(const Survey& survey, const std::set<Unit>& done) {
    std::vector<std::int64_t> pending;
    for (std::int64_t head = 0; head < survey.checkpoint.config().heads; ++head) {
        const bool owed = std::any_of(survey.measures.begin(), survey.measures.end(), [&](const Measure* measure) {
            return measure->group != nullptr && !done.contains({std::string(measure->name), head});
        });
        if (owed) pending.push_back(head);
    }
    return pending;
}

void add_layers(const Survey& survey, const std::set<Unit>& done, PlanInput& input) {
    for (std::int64_t row = 0; row < survey.layers.size(); ++row) {
        std::array<std::int64_t, layer_part_count> bytes{};
        LayerRequest request{survey.layers.begin + row, {}};
        if (input.head_blocks || owes_layer_units(survey, done, row)) {
            for (const WeightFamily family : needed_weights(survey.measures)) {
                bytes[static_cast<std::size_t>(part_of(family))] +=
                    survey.checkpoint.weight(family, request.layer).bytes();
                request.weights.push_back({family, {}});
            }
        }
        input.part_bytes.push_back(bytes);
        input.layer_memory.push_back(LayerStream::buffer_bytes(survey.checkpoint, request));
        if (owes_layer_units(survey, done, row)) input.all_weights_in_first_pass = true;
    }
}

void add_numbers(const Survey& survey, PlanInput& input) {
    for (const Variable& variable : survey.schema.variables) {
        std::int64_t bytes = size_of(variable.type);
        for (const std::int64_t length : survey.schema.shape_of(variable)) bytes *= length;
        input.result_bytes += bytes;
        input.largest_variable = std::max(input.largest_variable, bytes);
    }
    for (const Measure* measure : survey.measures) {
        if (measure->layer_scratch == nullptr) continue;
        const LayerScratch scratch =
            measure->layer_scratch(survey.checkpoint.config(), survey.settings, *survey.backend);
        input.layer_scratch_bytes = std::max(input.layer_scratch_bytes, scratch.working + scratch.kept);
        input.kept_scratch_bytes = std::max(input.kept_scratch_bytes, scratch.kept);
        input.layer_host_bytes = std::max(input.layer_host_bytes, scratch.host);
    }
}

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

// All tensors' names, types, shapes and places: what tells two checkpoints apart without reading them.
std::uint32_t header_digest(const Survey& survey) {
    std::uint32_t crc = crc32c(0, survey.checkpoint.config().text.data(), survey.checkpoint.config().text.size());
    const auto add = [&crc](const std::string& text) { crc = crc32c(crc, text.data(), text.size()); };
    for (std::size_t f = 0; f < survey.checkpoint.files().size(); ++f) {
        add(fmt::format("{} {}\n", survey.checkpoint.files()[f].filename().string(),
                        survey.checkpoint.file_bytes()[f]));
    }
    for (std::int64_t layer = survey.layers.begin; layer < survey.layers.end; ++layer) {
        for (const WeightFamily family : needed_weights(survey.measures)) {
            const Weight weight = survey.checkpoint.weight(family, layer);
            const auto* file = std::get_if<FileSource>(&weight.source);
            add(fmt::format("{} {} {} {} {} {}\n", weight.tensor, name_of(weight.dtype), weight.rows, weight.cols,
                            file != nullptr ? file->file : -1, file != nullptr ? file->offset : 0));
        }
    }
    return crc;
}

}  // namespace

std::vector<std::string> Survey::measure_names() const {
    std::vector<std::string> names;
    for (const Measure* measure : measures) names.emplace_back(measure->name);
    return names;
}

Identity Survey::identity() const {
    std::string names;
    for (const std::string& name : measure_names()) names += (names.empty() ? "" : ",") + name;
    return {{"geom-mpi version", GEOM_VERSION},
            {"model", checkpoint.name()},
            {"commit", checkpoint.commit()},
            {"family", std::string(checkpoint.family().name)},
            {"headers", fmt::format("{:08x}", header_digest(*this))},
            {"measures", names},
            {"layers", fmt::format("{}:{}", layers.begin, layers.end)},
            {"top-k", fmt::format("{}", settings.top_k)},
            {"products", backend->on_device() ? format.path + " on " + backend->device() : format.path}};
}

Survey make_survey(const RunOptions& options, const Machine& machine) {
    Survey survey;
    survey.machine = machine;
    survey.checkpoint = Checkpoint::open(options.model, options.revision, options.family);
    const ModelConfig& config = survey.checkpoint.config();
    survey.layers = chosen_layers(options, config);
    survey.settings.top_k = options.top_k;
    survey.measures = chosen_measures(options);
    survey.backend = make_backend(options.backend, machine);
    survey.format = survey.backend->head_block_format(operator_dtype(survey.checkpoint, survey.layers), config.head_dim,
                                                      config.hidden);
    survey.schema.scales = shared_scales(config, survey.layers, survey.settings);
    for (const Measure* measure : survey.measures) {
        for (Variable& variable : measure->variables()) survey.schema.variables.push_back(std::move(variable));
    }
    survey.file = output_file(options, survey.checkpoint);
    return survey;
}

Plan make_plan(const Survey& survey, const std::set<Unit>& done, int ranks) {
    const ModelConfig& config = survey.checkpoint.config();
    PlanInput input;
    input.layers = survey.layers.size();
    input.heads = config.heads;
    input.kv_heads = config.kv_heads;
    input.head_dim = config.head_dim;
    input.hidden = config.hidden;
    input.pending_heads = pending_heads(survey, done);
    input.head_blocks = !input.pending_heads.empty();
    input.block_bytes = survey.format.bytes;
    input.stored_row_block =
        config.head_dim * survey.checkpoint.weight(WeightFamily::q_proj, survey.layers.begin).row_bytes();
    input.ranks = ranks;
    input.budget = survey.machine.budget;
    input.process_bytes = survey.machine.resident + writing_reserve;
    input.scratch_bytes =
        survey.backend->tile_dots_scratch(survey.format, input.layers, config.heads / config.kv_heads);
    input.device = survey.backend->on_device();
    input.device_budget = survey.machine.device_budget;
    input.device_process_bytes = gpu_reserve();
    input.exchange_on_host = !exchanges_on_device(survey.machine, ranks);
    add_layers(survey, done, input);
    add_numbers(survey, input);
    return make_plan(input);
}

std::vector<LayerRequest> layer_requests(const Survey& survey, const Plan& plan, const std::set<Unit>& done,
                                         std::int64_t pass, std::int64_t rank) {
    const PlanInput& input = plan.input;
    const auto q_rows = rows_of_heads(plan.heads_in_pass(pass), input.head_dim);
    const auto k_rows = rows_of_heads(plan.groups_in_pass(pass), input.head_dim);
    std::vector<LayerRequest> requests;
    for (const LoadItem& item : plan.ranks[static_cast<std::size_t>(rank)].loads) {
        LayerRequest request{survey.layers.begin + item.layer, {}};
        const bool whole = pass == 0 && owes_layer_units(survey, done, item.layer);
        for (const WeightFamily family : needed_weights(survey.measures)) {
            if (!item.has(part_of(family))) continue;
            if (whole) {
                request.weights.push_back({family, {}});
            } else if (input.head_blocks && family == WeightFamily::q_proj) {
                request.weights.push_back({family, q_rows});
            } else if (input.head_blocks && family == WeightFamily::k_proj) {
                request.weights.push_back({family, k_rows});
            }
        }
        requests.push_back(std::move(request));
    }
    return requests;
}

std::string describe_model(const Checkpoint& checkpoint) {
    const ModelConfig& c = checkpoint.config();
    std::string text = fmt::format("model     {}", checkpoint.name());
    if (!checkpoint.commit().empty())
        text += fmt::format("  ({} @ {})", checkpoint.revision(), checkpoint.commit().substr(0, 12));
    text += fmt::format(
        "\n          {}: {} layers, {} query heads, {} key/value heads, head_dim {}, hidden {}, intermediate {}",
        checkpoint.family().name, c.layers, c.heads, c.kv_heads, c.head_dim, c.hidden, c.intermediate);
    if (c.moe.experts > 0) text += fmt::format(", {} experts of {}", c.moe.experts, c.moe.intermediate);
    text += fmt::format("\n          {:.2f} G parameters, W_Q/W_K as {}",
                        static_cast<double>(checkpoint.parameters()) * 1e-9,
                        name_of(checkpoint.weight(WeightFamily::q_proj, 0).dtype));
    std::int64_t bytes = 0;
    for (const std::int64_t size : checkpoint.file_bytes()) bytes += size;
    if (bytes > 0)
        text += fmt::format(", {} in {} file{}", readable_bytes(static_cast<double>(bytes)), checkpoint.files().size(),
                            checkpoint.files().size() == 1 ? "" : "s");
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

std::string describe_plan(const Survey& survey, const Plan& plan) {
    const auto bytes = [](std::int64_t n) { return readable_bytes(static_cast<double>(n)); };
    std::string text =
        fmt::format("plan      {} rank{}, {} pass{} over the weights, {} read, {} of products ({})\n",
                    plan.ranks.size(), plan.ranks.size() == 1 ? "" : "s", plan.passes, plan.passes == 1 ? "" : "es",
                    bytes(plan.bytes_read()), readable_flops(static_cast<double>(plan.flops())), survey.format.path);
    text +=
        fmt::format("          imbalance (largest over mean): loading {:.2f}, products {:.2f}; budget {} a rank{}\n",
                    plan.load_imbalance(), plan.flops_imbalance(), bytes(plan.input.budget),
                    plan.input.device ? fmt::format(", {} of GPU memory", bytes(plan.input.device_budget)) : "");
    if (plan.input.device && plan.ranks.size() > 1)
        text += fmt::format("          head blocks go from GPU to GPU {}\n",
                            plan.input.exchange_on_host ? "through the hosts' memory (MPI)" : "by NCCL");
    text +=
        fmt::format("{:>6} {:>10} {:>10} {:>10} {:>14} {:>10} {:>12} {:>11}{}\n", "rank", "layers", "heads", "reads",
                    "products", "memory", "head blocks", "in flight", plan.input.device ? " GPU memory  place" : "");
    constexpr std::size_t shown = 64;
    for (std::size_t r = 0; r < std::min(shown, plan.ranks.size()); ++r) {
        const RankPlan& rank = plan.ranks[r];
        const MemoryPlan& computing = plan.input.device ? rank.device : rank.memory;
        text += fmt::format("{:>6} {:>10} {:>10} {:>10} {:>14} {:>10} {:>12} {:>11}", r,
                            loads_of(rank, survey.layers.begin), heads_of(rank), bytes(rank.bytes_read),
                            readable_flops(static_cast<double>(rank.flops)), bytes(rank.memory.total()),
                            bytes(computing.blocks), bytes(computing.stream));
        if (plan.input.device) text += fmt::format(" {:>10}  {}", bytes(rank.device.total()), survey.machine.places[r]);
        text += "\n";
    }
    if (plan.ranks.size() > shown) text += fmt::format("{:>6} and {} more\n", "...", plan.ranks.size() - shown);
    const auto idle =
        std::count_if(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& r) { return r.loads.empty(); });
    const auto without =
        std::count_if(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& r) { return r.flops == 0; });
    if (idle > 0) text += fmt::format("          {} ranks load nothing: there are no more layers to divide\n", idle);
    if (without > 0)
        text += fmt::format("          {} ranks multiply nothing: there are no more heads to divide\n", without);
    return text;
}

}  // namespace geom
