#include "app/pipeline.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "app/choose_backend.hpp"
#include "app/fault.hpp"
#include "app/publish.hpp"
#include "app/recorder.hpp"
#include "app/summary.hpp"
#include "app/survey.hpp"
#include "app/watchful.hpp"
#include "core/error.hpp"
#include "core/progress.hpp"
#include "measures/head_store.hpp"
#include "mpi/agreement.hpp"
#include "mpi/collectives.hpp"
#include "output/result_file.hpp"
#include "stream/layer_stream.hpp"

namespace geom {

namespace {

Survey agreed_survey(const RunOptions& options, const Communicator& communicator) {
    const Machine machine =
        look_around({options.threads, options.memory_budget, options.backend != "cpu"}, communicator);
    std::optional<Survey> survey;
    agree_on(communicator, [&] { survey = make_survey(options, machine); });
    return std::move(*survey);
}

Plan agreed_plan(const Survey& survey, const std::set<Unit>& done, const Communicator& communicator) {
    Plan plan;
    agree_on(communicator, [&] { plan = make_plan(survey, done, communicator.size()); });
    return plan;
}

// The part of a run that makes numbers.
class Computation {
public:
    Computation(const Survey& survey, const Plan& plan, Recorder& recorder, const Communicator& communicator,
                Phases& phases, Progress& progress)
        : survey_(survey),
          plan_(plan),
          recorder_(recorder),
          communicator_(communicator),
          phases_(phases),
          progress_(progress),
          reader_(survey.checkpoint.files(), Reader::threads_for(survey.checkpoint.files(), survey.machine.threads)),
          watchful_(communicator, progress, phases,
                    [this] { return reader_.bytes_read() + survey_.backend->finished(); }),
          context_{survey.checkpoint.config(),
                   survey.layers,
                   survey.settings,
                   survey.schema,
                   *survey.backend,
                   [this](UnitResult result) { recorder_.take(std::move(result)); }} {
        communicator_.set_idle([this] { watchful_.tick(); });
        survey_.backend->workers().set_idle([this] { watchful_.tick(); });
    }
    ~Computation() {
        communicator_.set_idle({});
        survey_.backend->workers().set_idle({});
    }
    Computation(const Computation&) = delete;
    Computation& operator=(const Computation&) = delete;

    void run() {
        collectives_ = make_collectives(*survey_.backend, survey_.machine, communicator_);
        for (std::int64_t pass = 0; pass < plan_.passes; ++pass) {
            HeadStore blocks(plan_, pass, communicator_.rank(), survey_.format, *survey_.backend);
            load_layers(pass, blocks);
            multiply_groups(pass, blocks);
        }
    }

    const Reader& reader() const noexcept { return reader_; }
    std::string exchange() const { return collectives_->name(); }

private:
    // Rounds of a pass: each rank's next layer is looked at by itself, then its head blocks go to their owners.
    void load_layers(std::int64_t pass, HeadStore& blocks) {
        progress_.begin("load", static_cast<double>(mine().bytes_read) / static_cast<double>(plan_.passes), "B");
        LayerStream stream(survey_.checkpoint, reader_, *survey_.backend,
                           layer_requests(survey_, plan_, recorder_.done(), pass, communicator_.rank()),
                           [this] { watchful_.tick(); });
        for (std::int64_t round = 0; round < plan_.rounds(); ++round) {
            const LayerWeights* weights = nullptr;
            const std::int64_t before = reader_.bytes_read();
            phases_.time("load", [&] {
                agree_on(communicator_, [&] {
                    maybe_fail("load", communicator_.rank());
                    watchful_.stop_if_asked();
                    weights = stream.next();
                });
            });
            if (weights != nullptr && pass == 0) look_at_layer(*weights);
            if (plan_.input.head_blocks) {
                const bool attention = plan_.attention_layer(communicator_.rank(), round) >= 0;
                phases_.time("exchange", [&] {
                    maybe_fail("exchange", communicator_.rank());
                    blocks.exchange_round(round, attention ? weights : nullptr, *collectives_);
                });
            }
            progress_.advance(static_cast<double>(reader_.bytes_read() - before));
        }
        progress_.end();
    }

    void look_at_layer(const LayerWeights& weights) {
        for (const Measure* measure : survey_.measures) {
            const Unit unit{std::string(measure->name), weights.layer() - survey_.layers.begin};
            if (measure->layer == nullptr || recorder_.done().contains(unit)) continue;
            phases_.time(unit.measure, [&] { measure->layer(weights, context_); });
        }
    }

    // All ranks go through as many shares as any of them has, so that they can stop together between two.
    void multiply_groups(std::int64_t pass, const HeadStore& blocks) {
        std::size_t most = 0;
        for (const RankPlan& rank : plan_.ranks)
            most = std::max(most, rank.passes[static_cast<std::size_t>(pass)].size());
        const auto held = static_cast<std::int64_t>(blocks.shares().size());
        const double flops = static_cast<double>(mine().flops) / static_cast<double>(plan_.passes);
        for (const Measure* measure : survey_.measures) {
            if (measure->group == nullptr || !plan_.input.head_blocks) continue;
            progress_.begin(std::string(measure->name), flops, "FLOP");
            for (std::int64_t share = 0; share < static_cast<std::int64_t>(most); ++share) {
                phases_.time("wait", [&] { agree_on(communicator_, [&] { watchful_.stop_if_asked(); }); });
                if (share >= held) continue;
                phases_.time(std::string(measure->name), [&] {
                    maybe_fail("measure", communicator_.rank());
                    measure->group(blocks, share, context_);
                });
                progress_.advance(flops / static_cast<double>(held));
            }
            progress_.end();
        }
    }

    const RankPlan& mine() const { return plan_.ranks[static_cast<std::size_t>(communicator_.rank())]; }

    const Survey& survey_;
    const Plan& plan_;
    Recorder& recorder_;
    Communicator communicator_;
    Phases& phases_;
    Progress& progress_;
    Reader reader_;
    Watchful watchful_;
    MeasureContext context_;
    std::unique_ptr<Collectives> collectives_;
};

RunRecord record_of(const Survey& survey, const Plan& plan, const Computation& computation, std::size_t resumed,
                    const std::string& command_line, const Communicator& communicator) {
    const Reader& reader = computation.reader();
    RunRecord run;
    run.exchange = computation.exchange();
    run.command_line = command_line;
    run.measures = survey.measure_names();
    run.backend = survey.backend->name();
    run.path = survey.format.path;
    run.hosts = communicator.all_gather(survey.machine.host);
    run.devices = communicator.all_gather(fmt::format("{}, {} thread{}", survey.backend->device(),
                                                      survey.machine.threads, survey.machine.threads == 1 ? "" : "s"));
    run.ranks = communicator.size();
    run.passes = plan.passes;
    run.flops = plan.flops();
    run.planned_bytes = plan.peak_bytes();
    run.planned_device_bytes = plan.peak_device_bytes();
    run.bytes_read = communicator.all_reduce_sum(reader.bytes_read());
    run.digest = static_cast<std::uint64_t>(communicator.all_reduce_sum(static_cast<std::int64_t>(reader.digest())));
    run.resumed_units = static_cast<std::int64_t>(resumed);
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

// With --resume a result that is there already, and of this very run, is as good as one that is made now.
bool finished_before(const RunOptions& options, const Survey& survey) {
    if (!options.resume || !std::filesystem::exists(survey.file)) return false;
    return ResultReader(survey.file).text_attribute("", "identity") == identity_text(survey.identity());
}

}  // namespace

void run_pipeline(const RunOptions& options, const std::string& command_line, const Communicator& communicator,
                  Phases& phases) {
    Progress progress(options.quiet || communicator.rank() != 0);
    const Survey survey = agreed_survey(options, communicator);
    if (const std::string left_idle = idle_gpus(survey); !left_idle.empty()) progress.note(left_idle);
    bool finished = false;
    agree_on(communicator, [&] {
        finished = finished_before(options, survey);
        if (!finished) check_output(survey.file, options.overwrite);
        if (!options.json.empty() && options.json != "-") check_output(options.json, true);
    });
    if (finished) {
        if (communicator.rank() == 0) fmt::print("{}: complete already\n", survey.file.string());
        return;
    }
    Recorder recorder(survey, communicator, options.fresh);
    const Plan plan = agreed_plan(survey, recorder.done(), communicator);
    if (!recorder.done().empty())
        progress.note(fmt::format("geom-mpi: going on from the journal: {} units are done", recorder.done().size()));
    recorder.open();
    RunRecord run;
    Cosines cosines;
    try {
        Computation computation(survey, plan, recorder, communicator, phases, progress);
        phases.started();
        computation.run();
        run = record_of(survey, plan, computation, recorder.done().size(), command_line, communicator);
        cosines = publish(survey, run, recorder, communicator, phases);
    } catch (const AgreedError&) {
        recorder.flush();  // what is computed stays computed, whatever went wrong
        throw;
    }
    recorder.finish();
    agree_on(communicator, [&] {
        if (communicator.rank() == 0) speak(options, run, survey, cosines);
    });
}

std::string dry_run(const RunOptions& options, const Communicator& communicator) {
    const Survey survey = agreed_survey(options, communicator);
    return describe_model(survey.checkpoint) + describe_plan(survey, agreed_plan(survey, {}, communicator));
}

}  // namespace geom
