#include "app/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "app/version.hpp"
#include "checkpoint/families.hpp"
#include "checkpoint/synthetic.hpp"
#include "core/error.hpp"
#include "core/mistakes.hpp"
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
    for (const Measure& measure : measures()) text += fmt::format("  {:<12} {}\n", measure.name, measure.summary);
    text +=
        "\nModels:\n"
        "  a folder             with config.json and safetensors shards\n"
        "  ORG/NAME             a hub id, resolved in the local cache; nothing is ever downloaded\n"
        "  synth:SHAPE[?...]    deterministic weights of a shape below, or L28-H16-KV8-hd128-D1024-F3072;\n"
        "                       options seed=N layers=N dtype=bf16|f16|f32|f64 drift=T iid=1, joined by &\n";
    text += "Families: " + known_families() + "\nShapes: " + known_synthetic_shapes() + "\n";
    text +=
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
    std::vector<std::string> layers;  ///< "A:B", or A and B: an array in a file
    std::string memory_budget, head, block, analyze_block;
};

void add_model_options(CLI::App& app, RunOptions& run) {
    app.add_option("--model", run.model, "folder, hub id (ORG/NAME or ORG/NAME@REVISION), or synth:SHAPE")
        ->type_name("MODEL");
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
    app.add_option("--layers", raw.layers, "only layers A to B-1")->expected(1, 2)->type_name("A:B");
    app.add_option("--top-k", run.top_k,
                   "singular directions to keep of each head (at most head_dim are) and of each layer's step; 0: none")
        ->capture_default_str()
        ->check(CLI::Range(0, 1 << 20))
        ->type_name("K");
    app.add_flag("--legacy", run.legacy, "also what earlier scripts made of these measures, in the group legacy");
    app.add_flag("--folded", run.folded,
                 "also the gram and the cosines of W_Q and W_K times the weights of the norm before them");
    app.add_option("--anchor", run.anchor, "decoder layer that the analysis compares the others with; -1: the last")
        ->capture_default_str()
        ->type_name("L");
    app.add_option("--block", raw.block, "summarise variation over layers A to B-1 (default all that are looked at)")
        ->type_name("A:B");
    add_backend_option(app, run.backend);
    app.add_option("--memory-budget", raw.memory_budget,
                   "memory a rank may use, of the host and of its GPU each, e.g. 8GiB (default 0.8 of what is free)")
        ->type_name("BYTES");
    app.add_option("--threads", run.threads, "threads a rank (default: see below)")
        ->check(CLI::Range(1, 4096))
        ->type_name("N");
}

void add_residual_options(CLI::App& app, RunOptions& run) {
    auto* calibration = app.add_option("--calibration", run.calibration,
                                       "residual: the text that goes through the model, prompts separated by blank "
                                       "lines (default: the program's own)")
                            ->type_name("FILE");
    auto* token_ids = app.add_option("--token-ids", run.token_ids,
                                     "residual: its token ids instead, one a line or an HDF5 dataset token_ids")
                          ->type_name("FILE")
                          ->excludes(calibration);
    app.add_option("--hidden-states", run.hidden_states,
                   "residual: streams instead, an HDF5 dataset hidden_states [edge, token, hidden], or a result of "
                   "--save-hidden")
        ->type_name("FILE")
        ->excludes(calibration)
        ->excludes(token_ids);
    app.add_option("--max-tokens", run.max_tokens, "residual: tokens of the text that are used")
        ->capture_default_str()
        ->check(CLI::Range(1, 1 << 30))
        ->type_name("N");
    app.add_flag("--keep-first", run.keep_first, "residual: the first token (an attention sink) counts too");
    app.add_flag("--save-hidden", run.save_hidden, "residual: streams go into the result as well");
    app.add_option("--phases", run.phases,
                   "residual: runs of layers, a line each: NAME A:B (default A to E and tail, by depth)")
        ->type_name("FILE");
    app.add_option("--forward-dtype", run.forward_dtype,
                   "residual: f32 for products in f32 alone, auto for bf16 ones where they lose nothing against it")
        ->capture_default_str()
        ->check(CLI::IsMember({"auto", "f32"}))
        ->type_name("NAME");
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
    app.add_option("--progress", run.progress,
                   "bar, lines (one a minute), none, or auto: a bar where stderr, or mpirun's, is a terminal")
        ->capture_default_str()
        ->check(CLI::IsMember({"auto", "bar", "lines", "none"}))
        ->type_name("NAME");
    app.add_flag("--quiet", run.quiet, "no progress, no notes");
}

void add_analyze_options(CLI::App& app, AnalyzeOptions& analyze, RawValues& raw) {
    app.add_option("FILE.h5", analyze.file, "a finished result")->required();
    app.add_option("--anchor", analyze.anchor,
                   "compare with this decoder layer, not the one of the run; -1: the last (nothing is measured again)")
        ->type_name("L");
    app.add_option("--head", raw.head, "the head to show in depth, as layer:head (default the middle layer's first)")
        ->type_name("L:H");
    app.add_option("--block", raw.analyze_block, "summarise variation over layers A to B-1 (default the run's)")
        ->type_name("A:B");
    app.add_option("--format", analyze.format, "text, md (Markdown), csv or json")
        ->capture_default_str()
        ->check(CLI::IsMember({"text", "md", "csv", "json"}))
        ->type_name("NAME");
    app.add_option("-o,--output", analyze.folder, "folder for the tables, a file each with csv (default: to stdout)")
        ->type_name("DIR");
}

void add_tokens_options(CLI::App& app, TokensOptions& tokens) {
    app.add_option("--model", tokens.model, "folder or hub id")->required()->type_name("MODEL");
    app.add_option("--revision", tokens.revision, "branch, tag or commit of a hub id (default main)")->type_name("R");
    app.add_option("FILE", tokens.file, "a text in UTF-8; -: stdin")->capture_default_str();
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

void add_selfcheck_options(CLI::App& app, SelfcheckOptions& selfcheck) {
    app.add_option("--model", selfcheck.model, "folder, hub id or synth:SHAPE")->required()->type_name("M");
    app.add_option("--revision", selfcheck.revision, "branch, tag or commit of a hub id")->type_name("R");
    app.add_option("--threads", selfcheck.threads, "threads (default: as a run's)")
        ->check(CLI::Range(1, 4096))
        ->type_name("N");
}

std::string joined(int argc, const char* const* argv) {
    std::string line;
    for (int i = 0; i < argc; ++i) line += fmt::format("{}{}", i == 0 ? "" : " ", argv[i]);
    return line;
}

// As a shell does it, which sees neither files of options nor --option=~/path.
void expand_home(std::string& path) {
    const char* home = std::getenv("HOME");
    if (home != nullptr && path.starts_with("~/")) path.replace(0, 1, home);
}

void interpret(Options& options, const RawValues& raw) {
    for (std::string* path :
         {&options.run.model, &options.run.output, &options.run.json, &options.analyze.file, &options.analyze.folder,
          &options.synth.folder, &options.bench.model, &options.bench.json, &options.selfcheck.model})
        expand_home(*path);
    if ((options.command == Command::run || options.command == Command::info) && options.run.model.empty())
        throw Error(ExitCode::usage,
                    "--model is required: a folder, a hub id, or synth:SHAPE; geom-mpi --help lists all options");
    if (!raw.layers.empty())
        options.run.layers = parse_range("--layers", fmt::format("{}", fmt::join(raw.layers, ":")));
    if (!raw.block.empty()) options.run.block = parse_range("--block", raw.block);
    if (!raw.analyze_block.empty()) options.analyze.block = parse_range("--block", raw.analyze_block);
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

std::vector<std::string> names_of_options(const CLI::App& app) {
    std::vector<std::string> names;
    const auto add = [&](const CLI::App& some) {
        for (const CLI::Option* option : some.get_options()) {
            for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
        }
    };
    add(app);
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (sub->parsed() || sub->get_name().empty()) add(*sub);  // an option group has no name of its own
    }
    return names;
}

std::vector<std::string> names_of_commands(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (!sub->get_name().empty()) names.push_back(sub->get_name());
    }
    return names;
}

void refuse_unexpected(const CLI::App& app) {
    const std::vector<std::string> extra = app.remaining(true);
    if (extra.empty()) return;
    if (extra.front() == "help") throw CLI::CallForHelp();
    throw Error(ExitCode::usage, fmt::format("{}; geom-mpi --help lists all options",
                                             about_unexpected(extra, names_of_options(app), names_of_commands(app))));
}

// What CLI11 says of a mistake, in this program's words.
std::string reason_of(const CLI::ParseError& error, const CLI::App& app) {
    constexpr std::string_view unknown_key = "INI was not able to parse ";
    const std::string reason = error.what();
    if (!reason.starts_with(unknown_key)) return reason;
    const std::string key = reason.substr(unknown_key.size());
    const std::string meant = nearest_name("--" + key, names_of_options(app));
    return fmt::format("the TOML file of --config has the key {}, which is no option{}", key,
                       meant.empty() ? "" : fmt::format(": is {} meant?", meant.substr(2)));
}

Options parse_options(int argc, const char* const* argv) {
    Options options;
    options.command_line = joined(argc, argv);
    RawValues raw;
    CLI::App app("geom-mpi: the geometry of a large language model's weights, in one HDF5 file", "geom-mpi");
    app.footer(footer());
    app.set_version_flag("--version", program_version());
    app.set_config("--config", "", "read options from a TOML file (keys as the long flags)")->type_name("FILE.toml");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.require_subcommand(0, 1);
    app.allow_extras();  // they are refused below, in words of this program
    auto* run_group = app.add_option_group("run");
    add_model_options(*run_group, options.run);
    add_work_options(*run_group, options.run, raw);
    add_residual_options(*run_group, options.run);
    add_run_options(*run_group, options.run);

    auto* info = app.add_subcommand("info", "what a checkpoint holds, and what a run would cost");
    add_model_options(*info, options.run);
    add_work_options(*info, options.run, raw);
    info->add_option("--ranks", options.run.ranks, "plan for so many ranks (default: those that mpirun starts)")
        ->check(CLI::Range(1, 1 << 20))
        ->type_name("N");
    info->add_option("--json", options.run.json, "write the plan as a JSON object to FILE, or to stdout for -")
        ->type_name("FILE|-");
    add_residual_options(*info, options.run);
    auto* analyze = app.add_subcommand("analyze", "print the tables of a finished result");
    add_analyze_options(*analyze, options.analyze, raw);
    auto* synth = app.add_subcommand("synth", "write a synthetic checkpoint");
    synth->add_option("SHAPE", options.synth.shape, "as after synth:, e.g. qwen3-0.6b?layers=4")->required();
    synth->add_option("DIR", options.synth.folder, "folder to write; must not exist or be empty")->required();
    auto* tokens = app.add_subcommand("tokens", "print a text's token ids by the model's tokenizer.json, one a line");
    add_tokens_options(*tokens, options.tokens);
    auto* bench = app.add_subcommand("bench", "rates of this machine and of the measures on it");
    add_bench_options(*bench, options.bench);
    auto* selfcheck = app.add_subcommand("selfcheck", "what theory says of a model's weights, tried on them");
    add_selfcheck_options(*selfcheck, options.selfcheck);
    for (CLI::App* sub : {info, analyze, synth, tokens, bench, selfcheck}) sub->allow_extras();
    info->fallthrough();  // it takes a run's options, --config among them
    try {
        app.parse(argc, argv);
        refuse_unexpected(app);
        if (info->parsed()) options.command = Command::info;
        if (analyze->parsed()) options.command = Command::analyze;
        if (synth->parsed()) options.command = Command::synth;
        if (tokens->parsed()) options.command = Command::tokens;
        if (bench->parsed()) options.command = Command::bench;
        if (selfcheck->parsed()) options.command = Command::selfcheck;
        interpret(options, raw);
    } catch (const CLI::ParseError& error) {
        std::ostringstream out, err;
        const bool good = app.exit(error, out, err) == 0;
        options.command = Command::nothing;
        options.exit_code = good ? 0 : static_cast<int>(ExitCode::usage);
        options.message =
            good ? out.str()
                 : fmt::format("geom-mpi: error: {:.1500}; geom-mpi --help lists all options\n", reason_of(error, app));
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
    std::string suffix = text.substr(std::min(used, text.size()));
    for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    static const std::vector<std::pair<std::string, double>> units = {
        {"", 1.0},     {"b", 1.0},    {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}, {"k", 0x1p10},
        {"m", 0x1p20}, {"g", 0x1p30}, {"t", 0x1p40},   {"kb", 1e3},     {"mb", 1e6},     {"gb", 1e9},     {"tb", 1e12}};
    for (const auto& [unit, factor] : units) {
        if (used > 0 && suffix == unit && value > 0.0 && value * factor < 9e18) {
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
