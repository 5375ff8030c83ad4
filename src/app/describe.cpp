#include "app/describe.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/progress.hpp"

namespace geom {

namespace {

std::string loads_of(const RankPlan& rank, const ModelShape& shape) {
    std::int64_t first = -1, last = -1;
    for (const auto* loads : {&rank.loads, &rank.rising}) {
        for (const Load& load : *loads) {
            if (load.of != UnitOf::layer || !load.repeated.empty()) continue;
            if (first < 0) first = shape.at(load.row).number;
            last = shape.at(load.row).number;
        }
    }
    return first < 0 ? "-" : fmt::format("{}:{}", first, last + 1);
}

std::string heads_of(const RankPlan& rank) {
    std::int64_t low = -1, high = -1;
    for (const PairPass& pass : rank.passes) {
        for (const GroupShare& held : pass.held) {
            low = low < 0 ? held.heads.front() : std::min(low, held.heads.front());
            high = std::max(high, held.heads.back() + 1);
        }
    }
    return low < 0 ? "-" : fmt::format("{}:{}", low, high);
}

std::string readable_seconds(double seconds) {
    if (seconds < 0.1) return "under 0.1 s";
    return seconds < 90.0 ? fmt::format("{:.{}f} s", seconds, seconds < 10.0 ? 1 : 0) : readable_time(seconds);
}

}  // namespace

std::string describe_model(const Checkpoint& checkpoint) {
    const ModelConfig& c = checkpoint.config();
    std::string text = fmt::format("model     {}", checkpoint.name());
    if (!checkpoint.commit().empty()) {
        const std::string revision = checkpoint.revision().empty() ? "" : checkpoint.revision() + ", ";
        text += fmt::format("  ({}commit {})", revision, checkpoint.commit().substr(0, 12));
    }
    text += fmt::format(
        "\n          {}: {} layers, {} query heads, {} key/value heads, head_dim {}, hidden {}, intermediate {}",
        checkpoint.family().name, c.layers, c.heads, c.kv_heads, c.head_dim, c.hidden, c.intermediate);
    if (c.moe.experts > 0) text += fmt::format(", {} experts of {}", c.moe.experts, c.moe.intermediate);
    text += fmt::format("\n          {:.2f} G parameters, W_Q/W_K as {}",
                        static_cast<double>(checkpoint.parameters()) * 1e-9,
                        name_of(checkpoint.weight(WeightFamily::q_proj, 0).dtype));
    std::int64_t bytes = 0;
    for (const FileStamp& stamp : checkpoint.stamps()) bytes += stamp.bytes;
    if (bytes > 0)
        text += fmt::format(", {} in {} file{}", readable_bytes(static_cast<double>(bytes)), checkpoint.files().size(),
                            checkpoint.files().size() == 1 ? "" : "s");
    return text + "\n";
}

std::int64_t result_bytes(const Survey& survey) {
    std::int64_t bytes = 0;
    const Schema schema = with_derivations(survey.measured);
    for (const Variable& variable : schema.variables) bytes += schema.bytes_of(variable);
    return bytes;
}

std::string describe_run(const Survey& survey, const Plan& plan) {
    const ModelShape& shape = survey.shape;
    const std::string some = survey.layers.size() == shape.model_layers
                                 ? ""
                                 : fmt::format("layers {} to {} of ", survey.layers.begin, survey.layers.end - 1);
    const auto flops = static_cast<double>(plan.flops());
    std::string names;
    for (const Measure* measure : survey.measures)
        names += fmt::format("{}{}", names.empty() ? "" : ", ", measure->name);
    return fmt::format("model     {}, {}{} layers, {} heads, hidden {}\n", survey.checkpoint.name(), some,
                       shape.model_layers, shape.heads, shape.hidden) +
           fmt::format("plan      {} on {} rank{}: {} to read{}; result {}, {}", names, plan.ranks.size(),
                       plan.ranks.size() == 1 ? "" : "s", readable_bytes(static_cast<double>(plan.bytes_read())),
                       flops > 0.0 ? fmt::format(", {} of products", readable_flops(flops)) : "",
                       survey.run.file.string(), readable_bytes(static_cast<double>(result_bytes(survey))));
}

std::string describe_seconds(const Plan& plan, const MachineRates& rates) {
    std::string text;
    for (std::size_t m = 0; m < plan.input.measures.size(); ++m) {
        const double seconds = predicted_seconds(plan, m, rates);
        if (seconds > 0.0)
            text += fmt::format("{}{} {}", text.empty() ? "" : ", ", plan.input.measures[m].name,
                                readable_seconds(seconds));
    }
    return text.empty() ? "nothing to compute" : text;
}

std::string describe_plan(const Survey& survey, const Plan& plan, const MachineRates& rates) {
    const auto bytes = [](std::int64_t n) { return readable_bytes(static_cast<double>(n)); };
    const auto budget = [&](std::int64_t n) {
        constexpr std::int64_t no_machine_has = std::int64_t{1} << 60;
        return n < no_machine_has ? bytes(n) + " a rank" : "none";
    };
    std::string text =
        fmt::format("plan      {} rank{}, {} pass{} over the weights, {} read, {} of products ({})\n",
                    plan.ranks.size(), plan.ranks.size() == 1 ? "" : "s", plan.passes, plan.passes == 1 ? "" : "es",
                    bytes(plan.bytes_read()), readable_flops(static_cast<double>(plan.flops())), survey.format.path);
    text += fmt::format("          imbalance (largest over mean): loading {:.2f}, products {:.2f}; budget {}{}\n",
                        plan.load_imbalance(), plan.flops_imbalance(), budget(plan.input.budget),
                        plan.input.device ? fmt::format(", of GPU memory {}", budget(plan.input.device_budget)) : "");
    text += fmt::format("          predicted on this machine: {}; reading {}, exchange and writing come on top\n",
                        describe_seconds(plan, rates), bytes(plan.bytes_read()));
    text += fmt::format("          the result has {}\n", bytes(result_bytes(survey)));
    text +=
        fmt::format("          (a rank's rates, probed in {:.2f} s: products {}/s, fp64 {}/s, copy {}/s)\n", rates.took,
                    readable_flops(rates.products), readable_flops(rates.fp64), readable_bytes(rates.copy));
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
        text += fmt::format("{:>6} {:>10} {:>10} {:>10} {:>14} {:>10} {:>12} {:>11}", r, loads_of(rank, survey.shape),
                            heads_of(rank), bytes(rank.bytes_read), readable_flops(static_cast<double>(rank.flops())),
                            bytes(rank.memory.total()), bytes(computing.blocks), bytes(computing.stream));
        if (plan.input.device)
            text += fmt::format(" {:>10}  {}", bytes(rank.device.total()),
                                r < survey.machine.places.size() ? survey.machine.places[r] : "elsewhere");
        text += "\n";
    }
    if (plan.ranks.size() > shown) text += fmt::format("{:>6} and {} more\n", "...", plan.ranks.size() - shown);
    const auto idle = std::count_if(plan.ranks.begin(), plan.ranks.end(),
                                    [](const RankPlan& r) { return r.loads.empty() && r.rising.empty(); });
    const auto without =
        std::count_if(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& r) { return r.flops() == 0; });
    if (idle > 0) text += fmt::format("          {} ranks load nothing: there are no more layers to divide\n", idle);
    if (without > 0 && plan.flops() > 0)
        text += fmt::format("          {} ranks multiply nothing: there are no more heads to divide\n", without);
    return text;
}

}  // namespace geom
