#include "app/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <sstream>

#include "core/error.hpp"
#include "measures/measure.hpp"

namespace geom {

namespace {

std::string measure_list(bool by_default) {
    std::string list;
    for (const Measure& measure : measures()) {
        if (measure.by_default || !by_default) list += fmt::format("{}{}", list.empty() ? "" : ",", measure.name);
    }
    return list;
}

std::string footer() {
    std::string text = "Measures:\n";
    for (const Measure& measure : measures()) text += fmt::format("  {:<10} {}\n", measure.name, measure.summary);
    text +=
        "\nModels:\n"
        "  a folder             with config.json and safetensors shards\n"
        "  ORG/NAME             a hub id, resolved in the local cache; nothing is ever downloaded\n"
        "  synth:SHAPE[?...]    deterministic weights: qwen3-0.6b ... llama-3.1-405b, tiny, "
        "L28-H16-KV8-hd128-D1024-F3072;\n"
        "                       options seed=N layers=N dtype=bf16|f16|f32|f64 drift=T iid=1, joined by &\n"
        "\nExamples:\n"
        "  geom-mpi --model Qwen/Qwen3-0.6B\n"
        "  mpirun -n 2 geom-mpi --model synth:qwen3-0.6b --json -\n"
        "  srun --mpi=pmix geom-mpi --model Qwen/Qwen3-32B -o qwen3-32b.h5\n"
        "  geom-mpi analyze qwen3-32b.h5 --anchor 31 --format csv -o tables\n"
        "\nExit codes: 0 done, 2 usage, 3 input, 4 NaN or infinity in weights, 5 output, 70 internal, 75 stopped.\n"
        "Threads a rank: --threads, else OMP_NUM_THREADS, else the cores the launcher binds it to.\n";
    return text;
}

// Values that CLI11 keeps as text until they have been parsed by the functions of this file.
struct RawValues {
    std::string layers, memory_budget, head;
};

void add_model_options(CLI::App& app, RunOptions& run) {
    app.add_option("--model", run.model, "folder, hub id, or synth:SHAPE")->required()->type_name("MODEL");
    app.add_option("--revision", run.revision, "branch, tag or commit of a hub id (default main)")->type_name("R");
    app.add_option("--family", run.family, "read the weights as this model family, whatever config.json says")
        ->type_name("NAME");
}

void add_backend_option(CLI::App& app, std::string& backend) {
    app.add_option("--backend", backend, "auto (cuda where every rank has a GPU), cpu or cuda")
        ->capture_default_str()
        ->type_name("NAME");
}

void add_work_options(CLI::App& app, RunOptions& run, RawValues& raw) {
    app.add_option("-m,--measures", run.measures, fmt::format("measures to run (default {})", measure_list(true)))
        ->delimiter(',')
        ->type_name("NAME,...");
    app.add_option("--layers", raw.layers, "only layers A to B-1")->type_name("A:B");
    app.add_option("--top-k", run.top_k, "singular directions to keep of each head (at most head_dim are)")
        ->capture_default_str()
        ->check(CLI::Range(1, 1 << 20))
        ->type_name("K");
    app.add_flag("--legacy", run.legacy, "also what earlier scripts made of these measures, in the group legacy");
    app.add_option("--anchor", run.anchor, "decoder layer that the analysis compares the others with; -1: the last")
        ->capture_default_str()
        ->type_name("L");
    add_backend_option(app, run.backend);
    app.add_option("--memory-budget", raw.memory_budget,
                   "memory a rank may use, of the host and of its GPU each, e.g. 8GiB (default 0.8 of what is free)")
        ->type_name("BYTES");
    app.add_option("--threads", run.threads, "threads a rank (default: see below)")
        ->check(CLI::Range(1, 4096))
        ->type_name("N");
}

void add_run_options(CLI::App& app, RunOptions& run) {
    app.add_option("-o,--output", run.output, "result file (default MODEL.geom.h5 in this folder)")
        ->type_name("FILE.h5");
    auto* overwrite = app.add_flag("--overwrite", run.overwrite, "replace an existing result");
    app.add_option("--json", run.json,
                   "write a JSON object about the run to FILE, or to stdout for - (the summary then goes to stderr)")
        ->type_name("FILE|-");
    app.add_option("--deadline", run.deadline, "seconds to wait for another rank before giving up")
        ->capture_default_str()
        ->check(CLI::Range(0.1, 1e9))
        ->type_name("S");
    auto* resume = app.add_flag("--resume", run.resume,
                                "succeed at once when the result of this very run is there already "
                                "(a stopped run's journal is always taken up)");
    app.add_flag("--fresh", run.fresh, "throw a stopped run's journal away and start anew")->excludes(resume);
    app.add_flag("--add", run.add,
                 "add measures to the result that is there, of the same model and options (a copy takes its place when "
                 "it is whole)")
        ->excludes(resume)
        ->excludes(overwrite);
    app.add_flag("--dry-run", run.dry_run, "print the plan (owners, bytes, memory, predicted seconds) and stop");
    app.add_flag("--quiet", run.quiet, "no progress, no notes");
}

void add_analyze_options(CLI::App& app, AnalyzeOptions& analyze, RawValues& raw) {
    app.add_option("FILE.h5", analyze.file, "a finished result")->required();
    app.add_option("--anchor", analyze.anchor,
                   "compare with this decoder layer, not the one of the run; -1: the last (nothing is measured again)")
        ->type_name("L");
    app.add_option("--head", raw.head, "the head to show in depth, as layer:head (default the middle layer's first)")
        ->type_name("L:H");
    app.add_option("--format", analyze.format, "text, md (Markdown), csv or json")
        ->capture_default_str()
        ->check(CLI::IsMember({"text", "md", "csv", "json"}))
        ->type_name("NAME");
    app.add_option("-o,--output", analyze.folder, "folder for the tables, a file each with csv (default: to stdout)")
        ->type_name("DIR");
}

void add_bench_options(CLI::App& app, BenchOptions& bench) {
    app.add_option("PART", bench.parts,
                   "gemm, copy, gram, heads, forward, load (default: all that have what they need)");
    app.add_option("--shape", bench.shape, "of the made-up weights, as after synth:")->capture_default_str();
    app.add_option("--model", bench.model, "folder of a checkpoint, for load")->type_name("FOLDER");
    add_backend_option(app, bench.backend);
    app.add_option("--repeat", bench.repeat, "how often")
        ->capture_default_str()
        ->check(CLI::Range(1, 4096))
        ->type_name("N");
    app.add_option("--threads", bench.threads, "threads (default: as a run's)")
        ->check(CLI::Range(1, 4096))
        ->type_name("N");
    app.add_option("--json", bench.json, "write all numbers to FILE, or to stdout for -")->type_name("FILE|-");
}

std::string joined(int argc, const char* const* argv) {
    std::string line;
    for (int i = 0; i < argc; ++i) line += fmt::format("{}{}", i == 0 ? "" : " ", argv[i]);
    return line;
}

void interpret(Options& options, const RawValues& raw) {
    if (!raw.layers.empty()) options.run.layers = parse_range("--layers", raw.layers);
    if (!raw.head.empty()) options.analyze.head = parse_head("--head", raw.head);
    if (!raw.memory_budget.empty()) options.run.memory_budget = parse_bytes("--memory-budget", raw.memory_budget);
    for (const std::string& name : options.run.measures) {
        if (find_measure(name) == nullptr) {
            throw Error(ExitCode::usage, fmt::format("-m {}: this version has no measure of that name; it has {}", name,
                                                     measure_list(false)));
        }
    }
    for (const std::string& backend : {options.run.backend, options.bench.backend}) {
        if (backend == "auto" || backend == "cpu" || backend == "cuda") continue;
        throw Error(ExitCode::usage, fmt::format("--backend {}: known are auto, cpu and cuda", backend));
    }
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
    Options options;
    options.command_line = joined(argc, argv);
    RawValues raw;
    CLI::App app("geom-mpi: the geometry of a large language model's weights, in one HDF5 file", "geom-mpi");
    app.footer(footer());
    app.set_version_flag("--version", "geom-mpi " GEOM_VERSION);
    app.set_config("--config", "", "read options from a TOML file (keys as the long flags)")->type_name("FILE.toml");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.require_subcommand(0, 1);
    auto* run_group = app.add_option_group("run");
    add_model_options(*run_group, options.run);
    add_work_options(*run_group, options.run, raw);
    add_run_options(*run_group, options.run);

    auto* info = app.add_subcommand("info", "what a checkpoint holds, and what a run would cost");
    add_model_options(*info, options.run);
    add_work_options(*info, options.run, raw);
    auto* analyze = app.add_subcommand("analyze", "print the tables of a finished result");
    add_analyze_options(*analyze, options.analyze, raw);
    auto* synth = app.add_subcommand("synth", "write a synthetic checkpoint");
    synth->add_option("SHAPE", options.synth.shape, "as after synth:, e.g. qwen3-0.6b?layers=4")->required();
    synth->add_option("DIR", options.synth.folder, "folder to write; must not exist or be empty")->required();
    auto* bench = app.add_subcommand("bench", "rates of this machine and of the measures on it");
    add_bench_options(*bench, options.bench);
    // The run's own options are not needed when a subcommand is given.
    for (CLI::App* sub : {info, analyze, synth, bench}) {
        sub->preparse_callback([run_group](std::size_t) { run_group->get_option("--model")->required(false); });
    }
    try {
        app.parse(argc, argv);
        if (info->parsed()) options.command = Command::info;
        if (analyze->parsed()) options.command = Command::analyze;
        if (synth->parsed()) options.command = Command::synth;
        if (bench->parsed()) options.command = Command::bench;
        interpret(options, raw);
    } catch (const CLI::ParseError& error) {
        std::ostringstream out, err;
        const bool good = app.exit(error, out, err) == 0;
        options.command = Command::nothing;
        options.exit_code = good ? 0 : static_cast<int>(ExitCode::usage);
        options.message =
            good ? out.str()
                 : fmt::format("geom-mpi: error: {:.1500}; geom-mpi --help lists all options\n", error.what());
    } catch (const Error& error) {
        options.command = Command::nothing;
        options.exit_code = static_cast<int>(error.code());
        options.message = fmt::format("geom-mpi: error: {:.1900}\n", error.what());
    }
    return options;
}

std::int64_t parse_bytes(const std::string& option, const std::string& text) {
    std::size_t used = 0;
    double value = 0.0;
    try {
        value = std::stod(text, &used);
    } catch (const std::exception&) {
        used = 0;
    }
    static const std::vector<std::pair<std::string, double>> units = {
        {"", 1.0},   {"B", 1.0},  {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
        {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},     {"TB", 1e12}};
    for (const auto& [unit, factor] : units) {
        if (used > 0 && text.substr(used) == unit && value > 0.0 && value * factor < 9e18) {
            return static_cast<std::int64_t>(std::llround(value * factor));
        }
    }
    throw Error(ExitCode::usage,
                fmt::format("{} {}: no amount of memory; write it like 8GiB, 512MiB or 2e9", option, text));
}

Range parse_range(const std::string& option, const std::string& text) {
    long long begin = 0, end = 0;
    int used = 0;
    if (std::sscanf(text.c_str(), "%lld:%lld%n", &begin, &end, &used) == 2 &&
        static_cast<std::size_t>(used) == text.size() && begin >= 0 && end > begin) {
        return {begin, end};
    }
    throw Error(ExitCode::usage, fmt::format("{} {}: no range; write A:B for A to B-1, with 0 <= A < B", option, text));
}

HeadName parse_head(const std::string& option, const std::string& text) {
    long long layer = 0, head = 0;
    int used = 0;
    if (std::sscanf(text.c_str(), "%lld:%lld%n", &layer, &head, &used) == 2 &&
        static_cast<std::size_t>(used) == text.size() && layer >= 0 && head >= 0) {
        return {layer, head};
    }
    throw Error(ExitCode::usage, fmt::format("{} {}: no head; write L:H for head H of layer L", option, text));
}

}  // namespace geom
