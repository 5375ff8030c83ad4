#include "app/pipeline.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>

#include "app/choose_backend.hpp"
#include "app/describe.hpp"
#include "app/page.hpp"
#include "app/plan_object.hpp"
#include "app/probe.hpp"
#include "app/publish.hpp"
#include "app/schedule.hpp"
#include "app/survey.hpp"
#include "app/version.hpp"
#include "core/error.hpp"
#include "core/host_name.hpp"
#include "core/progress.hpp"
#include "derivations/variation_ranking.hpp"
#include "mpi/agreement.hpp"
#include "mpi/environment.hpp"
#include "output/hdf5_file.hpp"
#include "output/output_path.hpp"
#include "output/result_file.hpp"

namespace geom {

namespace {

// All ranks opened the same one: a name may lead to different files on different nodes.
OpenedCheckpoint agreed_checkpoint(const RunOptions& options, const Communicator& communicator) {
    std::optional<OpenedCheckpoint> opened;
    agree_on(communicator, [&] { opened = open_checkpoint(options); });
    const std::string& mine = opened->fingerprint.contents;
    const std::string first = communicator.broadcast(mine, 0), first_host = communicator.broadcast(host_name(), 0);
    agree_on(communicator, [&] {
        const auto [there, here] = difference_of(first, mine);
        if (there == here) return;
        throw Error(ExitCode::input,
                    fmt::format("{}: not the same checkpoint on all ranks: '{}' for rank 0 on {}, '{}' for rank {} on "
                                "{}; every node needs the same files (and the same refs in its cache)",
                                options.model, there, first_host, here, communicator.rank(), host_name()));
    });
    opened->fingerprint.digest = communicator.broadcast(opened->fingerprint.digest, 0);
    return std::move(*opened);
}

// Texts, token ids, streams and phases come from files, which may differ from node to node.
void agree_on_identity(const Survey& survey, const Communicator& communicator) {
    const std::string first = communicator.broadcast(identity_text(survey.run.identity), 0);
    agree_on(communicator, [&] {
        const auto differences = differences_between(identity_of_text(first), survey.run.identity);
        if (differences.empty()) return;
        throw Error(ExitCode::input, fmt::format("not the same inputs on all ranks: from rank 0 to rank {} on {}, {}; "
                                                 "every node needs the same files",
                                                 communicator.rank(), host_name(), text_of(differences)));
    });
}

Survey agreed_survey(const RunOptions& options, const Communicator& communicator) {
    const Machine machine =
        inspect_machine({options.threads, options.memory_budget, options.backend != "cpu"}, communicator);
    OpenedCheckpoint opened = agreed_checkpoint(options, communicator);
    std::optional<Survey> survey;
    agree_on(communicator, [&] {
        survey = make_survey(options, machine, std::move(opened));
        if (options.add) add_to_result(*survey);
    });
    agree_on_identity(*survey, communicator);
    return std::move(*survey);
}

Plan agreed_plan(const Survey& survey, const std::set<Unit>& done, const Communicator& communicator) {
    Plan plan;
    agree_on(communicator, [&] { plan = make_plan(survey, done, communicator.size()); });
    return plan;
}

std::vector<std::string> library_versions(const Survey& survey, const std::string& exchange) {
    std::vector<std::string> versions = {"geom-mpi " GEOM_VERSION, "mpi " + MpiEnvironment::library(),
                                         "hdf5 " + hdf5_version(), "products " + survey.backend->library()};
    if (exchange == "nccl") versions.push_back("nccl " + nccl_version());
    return versions;
}

// Of every family of the first layer, with "{layer}" for its number, and of the globals: "q_proj model.layers. ...".
std::vector<std::string> tensor_names(const Survey& survey) {
    std::vector<std::string> names;
    const std::int64_t first = survey.layers.begin;
    const auto add = [&](WeightFamily family, std::int64_t layer, std::int64_t expert) {
        std::string name = survey.checkpoint.weight(family, layer, expert).tensor;
        const std::string number = fmt::format("layers.{}.", first), of_expert = ".experts.0.";
        if (const auto at = name.find(number); at != std::string::npos)
            name.replace(at, number.size(), "layers.{layer}.");
        if (const auto at = name.find(of_expert); at != std::string::npos && expert == 0)
            name.replace(at, of_expert.size(), ".experts.{expert}.");
        names.push_back(fmt::format("{} {}", name_of(family), name));
    };
    for (const WeightShape& weight : survey.shape.at(0).weights) {
        if (weight.expert <= 0) add(weight.family, first, weight.expert);
    }
    for (const WeightShape& global : survey.shape.globals) add(global.family, -1, -1);
    return names;
}

RunRecord record_of(const Survey& survey, const Plan& plan, const Schedule& schedule, const Recorder& recorder,
                    const std::string& command_line, const Communicator& communicator) {
    const Checkpoint& checkpoint = survey.checkpoint;
    const Reader& reader = schedule.reader();
    RunRecord run;
    run.program_version = GEOM_VERSION;
    run.program_commit = program_commit();
    run.tensors = tensor_names(survey);
    run.command_line = command_line;
    run.model = checkpoint.name();
    run.revision = checkpoint.revision();
    run.commit = checkpoint.commit();
    run.config = checkpoint.config().text;
    run.dtype = name_of(checkpoint.weight(WeightFamily::q_proj, survey.layers.begin).dtype);
    run.seed = checkpoint.seed();
    run.model_layers = survey.shape.model_layers;
    run.heads = survey.shape.heads;
    run.hidden = survey.shape.hidden;
    run.group_size = survey.shape.group_size();
    run.anchor = survey.derivation_settings.anchor;
    run.layers = survey.layers;
    run.block = survey.block;
    run.measures = measures_in_file(survey);
    run.left_out = survey.left_out;
    for (const Measure* measure : survey.copied) run.copied_measures.emplace_back(measure->name);
    run.fingerprint = survey.fingerprint;
    run.identity = survey.run.identity;
    run.backend = survey.backend->name();
    run.path = survey.format.path;
    run.exchange = schedule.exchange();
    run.versions = library_versions(survey, run.exchange);
    run.hosts = communicator.all_gather(survey.machine.host);
    run.devices = communicator.all_gather(fmt::format("{}, {} thread{}", survey.backend->device(),
                                                      survey.machine.threads, survey.machine.threads == 1 ? "" : "s"));
    run.ranks = communicator.size();
    run.passes = plan.passes;
    run.flops = plan.flops();
    run.planned_bytes = plan.peak_bytes();
    run.planned_device_bytes = plan.peak_device_bytes();
    run.bytes_read = communicator.all_reduce_sum(reader.bytes_read());
    run.digest = recorder.weights_digest();
    return run;
}

// What a user of GPUs has to know when the run does without them: some ranks have one, and not all.
std::string idle_gpus(const Survey& survey) {
    const std::vector<std::string>& gpus = survey.machine.gpu_ids;
    const auto without = static_cast<std::size_t>(std::find(gpus.begin(), gpus.end(), std::string()) - gpus.begin());
    const bool some = std::any_of(gpus.begin(), gpus.end(), [](const std::string& gpu) { return !gpu.empty(); });
    if (!some || without == gpus.size()) return {};
    return fmt::format("geom-mpi: on processors, though there are GPUs: rank {} is on {}", without,
                       survey.machine.places[without]);
}

// With --resume a result that is there already, of this very run and with these measures, is as good as one that is
// made now; with --add one that lacks none of them.
bool finished_before(const RunOptions& options, const Survey& survey) {
    if (options.add) return survey.measures.empty();
    if (!options.resume || !std::filesystem::exists(survey.run.file)) return false;
    const ResultReader result(survey.run.file);
    return result.text_attribute("", "identity") == identity_text(survey.run.identity) &&
           result.text_attribute("", "measures") == fmt::format("{}", fmt::join(measures_in_file(survey), ",")) &&
           result.number_attribute("", "anchor") == static_cast<double>(options.anchor) &&
           block_of(result) == survey.block;
}

void check_side_outputs(const RunOptions& options, const std::filesystem::path& file) {
    if (options.json.empty() || options.json == "-") return;
    if (same_file(options.json, file))
        throw Error(ExitCode::usage, fmt::format("--json {}: the result itself has that name", options.json));
    check_side_output(options.json);
}

// Of a run that was killed between the result's rename and this.
void remove_finished_journal(const Survey& survey, const Communicator& communicator) {
    const bool there = std::filesystem::exists(journal_folder(survey.run.file));
    if (communicator.broadcast(there ? "there" : "", 0).empty()) return;
    try {
        std::optional<OutputLock> lock;
        agree_on(communicator, [&] {
            if (communicator.rank() == 0) lock.emplace(survey.run.file);
        });
        Recorder(survey.run, communicator, false).remove();
    } catch (const AgreedError&) {  // of another run, or not to be deleted: it stays
    }
}

// Said before a run begins that will take long. Only then is the machine probed: a run that could end within the hour
// on a machine of a GFLOP a second is not.
void warn_of_long_run(const Survey& survey, const Plan& plan, const Communicator& communicator, Progress& progress) {
    constexpr double slowest = 1e9, hour = 3600.0;
    if (predicted_seconds(plan, {slowest, slowest, slowest}) < hour) return;
    MachineRates rates;
    agree_on(communicator, [&] { rates = probe(*survey.backend, survey.format, communicator); });
    const double seconds = predicted_seconds(plan, rates);
    if (seconds < hour) return;
    progress.note(
        fmt::format("geom-mpi: this will take about {} on this machine ({}); what is done is kept: stop it at "
                    "any time, and the same command goes on",
                    readable_time(seconds), describe_seconds(plan, rates)));
}

}  // namespace

void run_pipeline(const RunOptions& options, const std::string& command_line, const Communicator& communicator,
                  Phases& phases) {
    const bool speaks = !options.quiet && communicator.rank() == 0;
    Progress progress(speaks ? progress_style(options.progress) : ProgressStyle::none, speaks);
    const Survey survey = agreed_survey(options, communicator);
    if (const std::string left_idle = idle_gpus(survey); !left_idle.empty()) progress.note(left_idle);
    const bool overwrite = options.overwrite || options.add;
    std::optional<OutputLock> lock;
    bool finished = false;
    agree_on(communicator, [&] {
        check_side_outputs(options, survey.run.file);
        finished = finished_before(options, survey);
        if (!finished) check_output(survey.run.file, overwrite);
    });
    agree_on(communicator, [&] {
        if (communicator.rank() != 0 || finished) return;
        lock.emplace(survey.run.file);
        check_output(survey.run.file, overwrite);  // the lock's last holder may have written it meanwhile
        remove_abandoned(survey.run.file);
    });
    if (finished) {
        remove_finished_journal(survey, communicator);
        if (communicator.rank() == 0) fmt::print("{}: complete already\n", survey.run.file.string());
        return;
    }
    Recorder recorder(survey.run, communicator, options.fresh);
    const Plan plan = agreed_plan(survey, recorder.done(), communicator);
    if (!survey.note.empty()) progress.note("geom-mpi: " + survey.note);
    for (const std::string& one : survey.left_out) progress.note("geom-mpi: left out: " + one);
    if (!recorder.damage().empty()) progress.note("geom-mpi: the journal is damaged: " + recorder.damage());
    progress.note(describe_run(survey, plan));
    if (!recorder.done().empty())
        progress.note(fmt::format("geom-mpi: going on from the journal: {} units are done", recorder.done().size()));
    if (recorder.left_alone() > 0)
        progress.note(
            fmt::format("geom-mpi: the journal also has {} units of measures that were not asked for; it stays",
                        recorder.left_alone()));
    warn_of_long_run(survey, plan, communicator, progress);
    recorder.open();
    RunRecord run;
    try {
        Schedule schedule(survey, plan, recorder, communicator, phases, progress);
        phases.started();
        schedule.run();
        run = record_of(survey, plan, schedule, recorder, command_line, communicator);
        publish(survey, overwrite, run, recorder, communicator, phases);
    } catch (const AgreedError&) {
        try {
            recorder.flush();     // what is computed stays computed, whatever went wrong
        } catch (const Error&) {  // the first failure is the one to tell
        }
        throw;
    }
    recorder.finish();
    agree_on(communicator, [&] {
        if (communicator.rank() == 0) print_summary(survey.run.file, options.json);
    });
}

PlanReport dry_run(const RunOptions& options, const Communicator& communicator) {
    RunOptions nothing_computed = options;
    nothing_computed.dry_run = true;
    Survey survey = agreed_survey(nothing_computed, communicator);
    const int ranks = options.ranks > 0 ? options.ranks : communicator.size();
    std::string too_small;
    Plan plan;
    agree_on(communicator, [&] {
        try {
            plan = make_plan(survey, {}, ranks);
        } catch (const Error& error) {
            if (error.code() != ExitCode::usage || options.memory_budget > 0) throw;
            too_small = fmt::format("note      more than this machine has: {}\n", error.what());
            survey.machine.budget = survey.machine.device_budget = std::numeric_limits<std::int64_t>::max() / 2;
            plan = make_plan(survey, {}, ranks);
        }
    });
    const MachineRates rates = probe(*survey.backend, survey.format, communicator);
    return {describe_model(survey.checkpoint) + too_small + describe_plan(survey, plan, rates),
            plan_object(survey, plan, rates)};
}

}  // namespace geom
