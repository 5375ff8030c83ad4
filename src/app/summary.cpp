#include "app/summary.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/progress.hpp"
#include "mpi/collectives.hpp"
#include "mpi/environment.hpp"
#include "output/hdf5_file.hpp"

namespace geom {

namespace {

using nlohmann::ordered_json;

std::string utc_now() {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32] = {};
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

std::vector<std::string> unique(std::vector<std::string> values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
}

std::string joined(const std::vector<std::string>& values, const char* separator) {
    std::string text;
    for (const std::string& value : values) text += (text.empty() ? "" : separator) + value;
    return text;
}

std::string digest_text(std::uint64_t digest) { return fmt::format("{:016x}", digest); }

// NaN has no place in JSON.
ordered_json number_or_null(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr); }

ordered_json to_json(const AttributeValue& value) {
    return std::visit([](const auto& v) { return ordered_json(v); }, value);
}

struct CosineNumbers {
    double adjacent = 0.0, pairs = 0.0, first_last = 0.0, chance_sd = 0.0;
};

CosineNumbers cosine_numbers(const Cosines& cosines, const ModelConfig& config) {
    return {mean_adjacent_cosine(cosines), mean_pair_cosine(cosines),
            cosines.cos_mean[static_cast<std::size_t>(cosines.layers - 1)], 1.0 / static_cast<double>(config.hidden)};
}

std::string gram_page(const Cosines& cosines, const ModelConfig& config) {
    if (cosines.layers == 0) return {};
    const CosineNumbers n = cosine_numbers(cosines, config);
    std::string text = fmt::format(
        "gram      cosines of the QK operators, same head, mean over {} heads (by chance 0 +- {:.1e} a head: 1/D)\n",
        cosines.heads, n.chance_sd);
    if (cosines.layers == 1) return text + "          a single layer: no pairs\n";
    text += fmt::format("          consecutive layers {:+.4f}, all pairs {:+.4f}, first and last {:+.4f}\n", n.adjacent,
                        n.pairs, n.first_last);
    const std::int64_t layer_pairs = cosines.layers * (cosines.layers - 1) / 2;
    const auto pairs = static_cast<double>(layer_pairs * cosines.heads);
    double beyond = 0.0;
    for (std::int64_t l = 0; l < cosines.layers; ++l) {
        for (std::int64_t m = l + 1; m < cosines.layers; ++m) {
            for (std::int64_t h = 0; h < cosines.heads; ++h) {
                beyond +=
                    std::abs(cosines.cos[static_cast<std::size_t>((l * cosines.layers + m) * cosines.heads + h)]) >
                            6.0 * n.chance_sd
                        ? 1.0
                        : 0.0;
            }
        }
    }
    return text + fmt::format("          {:.1f}% of the {:.0f} pairs lie beyond 6 sd of chance\n",
                              100.0 * beyond / pairs, pairs);
}

std::string phase_page(const RunRecord& run) {
    std::string text = "time     ";
    for (const PhaseTime& phase : run.phases)
        text += fmt::format(" {} {:.2f} s{}", phase.name, phase.max, phase.name == "total" ? "" : ",");
    return text + " (slowest rank)\n";
}

std::string page(const RunRecord& run, const Survey& survey, const Cosines& cosines) {
    const Checkpoint& checkpoint = survey.checkpoint;
    const std::vector<std::string> hosts = unique(run.hosts), devices = unique(run.devices);
    std::string text = "\n";
    text += fmt::format("model     {}, {} layers, {} heads, hidden {}\n", checkpoint.name(), checkpoint.config().layers,
                        checkpoint.config().heads, checkpoint.config().hidden);
    text += fmt::format("run       {} rank{} on {}: {}; {} ({})\n", run.ranks, run.ranks == 1 ? "" : "s",
                        joined(hosts, ", "), joined(devices, "; "), run.backend, run.path);
    text += gram_page(cosines, checkpoint.config());
    text += phase_page(run);
    const auto bytes = [](std::int64_t n) { return readable_bytes(static_cast<double>(n)); };
    text += fmt::format("          {} read in {} pass{}; peak memory {} a rank ({} planned)\n", bytes(run.bytes_read),
                        run.passes, run.passes == 1 ? "" : "es", bytes(run.peak_bytes), bytes(run.planned_bytes));
    if (run.planned_device_bytes > 0)
        text += fmt::format("          peak GPU memory {} a rank ({} planned)\n", bytes(run.peak_device_bytes),
                            bytes(run.planned_device_bytes));
    return text + fmt::format("result    {}\n", survey.file.string());
}

ordered_json json_object(const RunRecord& run, const Survey& survey, const Cosines& cosines) {
    ordered_json object;
    for (const Attribute& attribute : root_attributes(run, survey)) object[attribute.name] = to_json(attribute.value);
    object["layers"] = {survey.layers.begin, survey.layers.end};
    object["file"] = survey.file.string();
    for (const PhaseTime& phase : run.phases)
        object["phases"][phase.name] = {{"min", phase.min}, {"mean", phase.mean}, {"max", phase.max}};
    object["versions"] = {{"geom-mpi", GEOM_VERSION},
                          {"mpi", MpiEnvironment::library()},
                          {"hdf5", hdf5_version()},
                          {"products", survey.backend->library()}};
    if (run.exchange == "nccl") object["versions"]["nccl"] = nccl_version();
    object["bytes_read"] = run.bytes_read;
    object["passes"] = run.passes;
    object["flops"] = run.flops;
    object["peak_memory"] = run.peak_bytes;
    object["planned_memory"] = run.planned_bytes;
    if (run.planned_device_bytes > 0) {
        object["peak_device_memory"] = run.peak_device_bytes;
        object["planned_device_memory"] = run.planned_device_bytes;
    }
    if (cosines.layers > 0) {
        const CosineNumbers n = cosine_numbers(cosines, survey.checkpoint.config());
        object["summary"] = {{"mean_cos_adjacent", number_or_null(n.adjacent)},
                             {"mean_cos_pairs", number_or_null(n.pairs)},
                             {"cos_first_last", number_or_null(n.first_last)},
                             {"chance_sd", n.chance_sd}};
    }
    return object;
}

}  // namespace

std::vector<std::string> phase_names(const std::vector<std::string>& measures) {
    std::vector<std::string> names = {"start", "load", "exchange"};
    names.insert(names.end(), measures.begin(), measures.end());
    for (const char* name : {"wait", "assemble", "write", "analysis", "total"}) names.emplace_back(name);
    return names;
}

Schema with_run_and_analysis(const Schema& schema, const RunRecord& run) {
    Schema full = schema;
    if (full.find("gram/gram") >= 0) {
        for (Variable& variable : analysis_variables()) full.variables.push_back(std::move(variable));
    }
    const std::vector<std::string> names = phase_names(run.measures);
    full.scales.push_back({"run", "phase", static_cast<std::int64_t>(names.size()), names, "phase of the run", {}});
    for (const char* which : {"min", "mean", "max"}) {
        full.variables.push_back({"run",
                                  fmt::format("seconds_{}", which),
                                  {"phase"},
                                  ValueType::f64,
                                  fmt::format("{} over ranks of a phase's time", which),
                                  "s",
                                  ""});
    }
    const auto bytes = [&full](const char* name, const char* long_name) {
        full.variables.push_back({"run", name, {}, ValueType::f64, long_name, "byte", ""});
    };
    bytes("bytes_read", "bytes of weights read, all ranks");
    bytes("peak_memory", "largest resident memory of a rank");
    bytes("planned_memory", "the same as planned before the run");
    if (run.planned_device_bytes > 0) {
        bytes("peak_device_memory", "largest GPU memory of a rank");
        bytes("planned_device_memory", "the same as planned before the run");
    }
    return full;
}

std::string identity_text(const Identity& identity) {
    std::string text;
    for (const auto& [key, value] : identity) text += fmt::format("{}{}={}", text.empty() ? "" : "; ", key, value);
    return text;
}

std::vector<Attribute> root_attributes(const RunRecord& run, const Survey& survey) {
    const Checkpoint& checkpoint = survey.checkpoint;
    std::vector<Attribute> attributes = {
        {"", "title", fmt::format("Geometry of the weights of {}", checkpoint.name())},
        {"", "geom_mpi_version", std::string(GEOM_VERSION)},
        {"", "created", utc_now()},
        {"", "command", run.command_line},
        {"", "model", checkpoint.name()},
        {"", "revision", checkpoint.revision()},
        {"", "commit", checkpoint.commit()},
        {"", "config", checkpoint.config().text},
        {"", "weights_digest", digest_text(run.digest)},
        {"", "dtype", std::string(name_of(checkpoint.weight(WeightFamily::q_proj, 0).dtype))},
        {"", "measures", joined(run.measures, ",")},
        {"", "ranks", run.ranks},
        {"", "backend", run.backend},
        {"", "product_path", run.path},
        {"", "exchange_path", run.exchange},
        {"", "devices", run.devices},
        {"", "hostnames", run.hosts},
        {"", "seed", static_cast<std::int64_t>(checkpoint.seed())},
        {"", "identity", identity_text(survey.identity())},
    };
    if (run.resumed_units > 0) {
        attributes.push_back(
            {"", "weights_digest_missing",
             fmt::format("{} units came from the journal of a stopped run: their weights were compared by headers, "
                         "sizes and file names, and the digest is of the rest",
                         run.resumed_units)});
    }
    return attributes;
}

std::vector<Slab> run_slabs(const RunRecord& run, const Schema& schema) {
    std::vector<double> min, mean, max;
    for (const PhaseTime& time : run.phases) {
        min.push_back(time.min);
        mean.push_back(time.mean);
        max.push_back(time.max);
    }
    const auto number = [](std::int64_t value) { return std::vector<double>{static_cast<double>(value)}; };
    std::vector<Slab> slabs = {whole_slab(schema, "run/seconds_min", min),
                               whole_slab(schema, "run/seconds_mean", mean),
                               whole_slab(schema, "run/seconds_max", max),
                               whole_slab(schema, "run/bytes_read", number(run.bytes_read)),
                               whole_slab(schema, "run/peak_memory", number(run.peak_bytes)),
                               whole_slab(schema, "run/planned_memory", number(run.planned_bytes))};
    if (run.planned_device_bytes > 0) {
        slabs.push_back(whole_slab(schema, "run/peak_device_memory", number(run.peak_device_bytes)));
        slabs.push_back(whole_slab(schema, "run/planned_device_memory", number(run.planned_device_bytes)));
    }
    return slabs;
}

void speak(const RunOptions& options, const RunRecord& run, const Survey& survey, const Cosines& cosines) {
    const bool json_to_stdout = options.json == "-";
    fmt::print(json_to_stdout ? stderr : stdout, "{}", page(run, survey, cosines));
    if (options.json.empty()) return;
    const std::string text = json_object(run, survey, cosines).dump(2);
    if (json_to_stdout) {
        fmt::print("{}\n", text);
        return;
    }
    std::ofstream out(options.json);
    out << text << "\n";
    if (!out.flush()) throw Error(ExitCode::output, fmt::format("{}: the JSON object cannot be written", options.json));
}

}  // namespace geom
