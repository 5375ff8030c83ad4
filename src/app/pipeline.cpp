#include "app/pipeline.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <utility>

#include "app/machine.hpp"
#include "app/summary.hpp"
#include "app/survey.hpp"
#include "core/error.hpp"
#include "core/progress.hpp"
#include "measures/analysis.hpp"
#include "measures/head_store.hpp"
#include "mpi/agreement.hpp"
#include "mpi/collectives.hpp"
#include "output/assemble.hpp"
#include "output/result_file.hpp"
#include "stream/layer_stream.hpp"

namespace geom {

namespace {

std::unique_ptr<Backend> make_backend(const RunOptions& options, const Machine& machine) {
    if (options.backend == "cuda") {
        throw Error(ExitCode::usage, "--backend cuda: this build has no CUDA backend; use --backend cpu or auto");
    }
    return make_cpu_backend(machine.threads, machine.amx);
}

// Threads that read: files keep several requests in flight whatever the cores; the generator uses the cores.
int reader_threads(const Checkpoint& checkpoint, int threads) { return checkpoint.files().empty() ? threads : std::max(threads, 4); }

std::filesystem::path output_file(const RunOptions& options, const Checkpoint& checkpoint) {
    if (!options.output.empty()) return options.output;
    std::string name = checkpoint.name();
    for (std::size_t at = 0; (at = name.find_first_of("/:?&=", at)) != std::string::npos;) {
        name.replace(at, 1, name[at] == '/' ? "--" : "-");
    }
    return name + ".geom.h5";
}

// One run: what every step needs, and the numbers so far.
class Run {
public:
    Run(const RunOptions& options, const Communicator& communicator, Phases& phases)
        : options_(options),
          communicator_(communicator),
          phases_(phases),
          progress_(options.quiet || communicator.rank() != 0),
          machine_(look_around(options.threads, options.memory_budget, communicator)),
          settings_{options.top_k} {
        agree_on(communicator_, [&] { survey(); });
        communicator_.set_idle([this] { progress_.tick(); });
        backend_->workers().set_idle([this] { progress_.tick(); });
    }

    std::string description() const { return describe_model(*checkpoint_) + describe_plan(*plan_, format_); }

    void compute() {
        Reader reader(checkpoint_->files(), reader_threads(*checkpoint_, machine_.threads));
        for (std::int64_t pass = 0; pass < plan_->passes; ++pass) {
            HeadStore blocks(*plan_, pass, communicator_.rank(), format_, *backend_);
            load_layers(pass, reader, blocks);
            multiply_groups(pass, blocks);
        }
        bytes_read_ = communicator_.all_reduce_sum(reader.bytes_read());
        digest_ = static_cast<std::uint64_t>(communicator_.all_reduce_sum(static_cast<std::int64_t>(reader.digest())));
    }

    void write(const std::string& command_line) {
        const std::filesystem::path temporary = temporary_file();
        try {
            write_skeleton(temporary, command_line);
            for (std::size_t v = 0; v < schema_.variables.size(); ++v) write_variable(temporary, v);
            const Cosines cosines = write_analysis(temporary);
            finish_file(temporary, cosines, command_line);
        } catch (const AgreedError&) {
            if (communicator_.rank() == 0) std::filesystem::remove(temporary);
            throw;
        }
    }

private:
    void survey() {
        checkpoint_ = std::make_unique<Checkpoint>(Checkpoint::open(options_.model, options_.revision, options_.family));
        file_ = output_file(options_, *checkpoint_);
        if (!options_.dry_run) check_output(file_, options_.overwrite);
        measures_ = chosen_measures(options_);
        layers_ = chosen_layers(options_, checkpoint_->config());
        backend_ = make_backend(options_, machine_);
        format_ = backend_->head_block_format(operator_dtype(*checkpoint_, layers_), checkpoint_->config().head_dim,
                                              checkpoint_->config().hidden);
        schema_ = make_schema(checkpoint_->config(), layers_, settings_, measures_);
        computed_.resize(schema_.variables.size());
        plan_ = std::make_unique<Plan>(make_plan(
            plan_input(*checkpoint_, layers_, measures_, settings_, schema_, *backend_, format_, machine_, communicator_.size())));
    }

    MeasureContext context() {
        return {checkpoint_->config(), layers_, settings_, schema_, *backend_, [this](UnitResult result) {
                    for (Slab& slab : result.slabs) computed_[static_cast<std::size_t>(slab.variable)].push_back(std::move(slab));
                }};
    }

    // Rounds of a pass: each rank's next layer is looked at by itself, then its head blocks go to their owners.
    void load_layers(std::int64_t pass, Reader& reader, HeadStore& blocks) {
        const auto collectives = make_host_collectives(communicator_);
        progress_.begin("load", static_cast<double>(mine().bytes_read) / static_cast<double>(plan_->passes), "B");
        LayerStream stream(*checkpoint_, reader, layer_requests(*plan_, pass, communicator_.rank(), layers_, measures_),
                           [this] { progress_.tick(); });
        const MeasureContext measure_context = context();
        for (std::int64_t round = 0; round < plan_->rounds(); ++round) {
            const LayerWeights* weights = nullptr;
            const std::int64_t before = reader.bytes_read();
            phases_.time("load", [&] { agree_on(communicator_, [&] { weights = stream.next(); }); });
            if (weights != nullptr && pass == 0) {
                for (const Measure* measure : measures_) {
                    if (measure->layer == nullptr) continue;
                    phases_.time(std::string(measure->name), [&] { measure->layer(*weights, measure_context); });
                }
            }
            if (plan_->input.head_blocks) {
                const bool attention = plan_->attention_layer(communicator_.rank(), round) >= 0;
                phases_.time("exchange", [&] { blocks.exchange_round(round, attention ? weights : nullptr, *collectives); });
            }
            progress_.advance(static_cast<double>(reader.bytes_read() - before));
        }
        progress_.end();
    }

    void multiply_groups(std::int64_t pass, const HeadStore& blocks) {
        const MeasureContext measure_context = context();
        const auto shares = static_cast<std::int64_t>(mine().passes[static_cast<std::size_t>(pass)].size());
        for (const Measure* measure : measures_) {
            if (measure->group == nullptr) continue;
            progress_.begin(std::string(measure->name), static_cast<double>(mine().flops) / static_cast<double>(plan_->passes), "FLOP");
            for (std::int64_t share = 0; share < shares; ++share) {
                phases_.time(std::string(measure->name), [&] { measure->group(blocks, share, measure_context); });
                progress_.advance(static_cast<double>(mine().flops) / static_cast<double>(plan_->passes * shares));
            }
            phases_.time("wait", [&] { communicator_.barrier(); });
            progress_.end();
        }
    }

    const RankPlan& mine() const { return plan_->ranks[static_cast<std::size_t>(communicator_.rank())]; }

    std::vector<std::string> measure_names() const {
        std::vector<std::string> names;
        for (const Measure* measure : measures_) names.emplace_back(measure->name);
        return names;
    }

    std::filesystem::path temporary_file() const {
        return communicator_.broadcast(communicator_.rank() == 0 ? temporary_name(file_).string() : std::string(), 0);
    }

    RunRecord record(const std::string& command_line) {
        RunRecord result;
        result.command_line = command_line;
        result.digest = digest_;
        result.bytes_read = bytes_read_;
        result.ranks = communicator_.size();
        result.backend = backend_->name();
        result.path = format_.path;
        result.measures = measure_names();
        result.hosts = communicator_.all_gather(machine_.host);
        result.devices = communicator_.all_gather(fmt::format("{}, {} thread{}", backend_->device(), machine_.threads, machine_.threads == 1 ? "" : "s"));
        result.planned_bytes = plan_->peak_bytes();
        result.passes = plan_->passes;
        result.flops = plan_->flops();
        return result;
    }

    void write_skeleton(const std::filesystem::path& temporary, const std::string& command_line) {
        phases_.time("write", [&] {
            full_schema_ = with_run_and_analysis(schema_, measure_names());
            const RunRecord run = record(command_line);
            agree_on(communicator_, [&] {
                if (communicator_.rank() == 0) create_skeleton(temporary, full_schema_, root_attributes(run, *checkpoint_));
            });
        });
    }

    // A variable at a time, so that its numbers exist twice only while they are on their way.
    void write_variable(const std::filesystem::path& temporary, std::size_t variable) {
        std::vector<Slab> slabs;
        phases_.time("assemble", [&] {
            slabs = assemble(schema_, computed_[variable], communicator_);
            computed_[variable].clear();
            if (communicator_.all_reduce_sum(static_cast<std::int64_t>(slabs.size())) == 0) {
                throw Error(ExitCode::internal, schema_.variables[variable].path() + " was not computed");
            }
        });
        phases_.time("write", [&] {
            agree_on(communicator_, [&] { write_slabs(temporary, full_schema_, slabs, communicator_); });
            agree_on(communicator_, [&] { verify_slabs(temporary, full_schema_, slabs); });
        });
    }

    // From the numbers as written: what `analyze` on the finished file would compute.
    Cosines write_analysis(const std::filesystem::path& temporary) {
        Cosines cosines;
        phases_.time("analysis", [&] {
            agree_on(communicator_, [&] {
                if (communicator_.rank() != 0 || full_schema_.find("analysis/cos") < 0) return;
                const auto gram = ResultReader(temporary, true).read("gram/gram");
                cosines = cosines_of(gram, layers_.size(), checkpoint_->config().heads);
                append(temporary, full_schema_, to_slabs(cosines, full_schema_), {});
            });
        });
        return cosines;
    }

    void finish_file(const std::filesystem::path& temporary, const Cosines& cosines, const std::string& command_line) {
        RunRecord run = record(command_line);
        run.phases = phases_.over_ranks(phase_names(measure_names()), communicator_);
        run.peak_bytes = communicator_.all_reduce_max(peak_resident_bytes());
        agree_on(communicator_, [&] {
            if (communicator_.rank() != 0) return;
            append(temporary, full_schema_, run_slabs(run, full_schema_), {});
            finish(temporary, file_);
        });
        if (communicator_.rank() == 0) speak(options_, run, *checkpoint_, layers_, cosines, file_);
    }

    const RunOptions& options_;
    Communicator communicator_;
    Phases& phases_;
    Progress progress_;
    Machine machine_;
    MeasureSettings settings_;
    std::unique_ptr<Checkpoint> checkpoint_;
    std::filesystem::path file_;
    std::vector<const Measure*> measures_;
    Range layers_;
    std::unique_ptr<Backend> backend_;
    HeadBlockFormat format_;
    Schema schema_, full_schema_;
    std::unique_ptr<Plan> plan_;
    std::vector<std::vector<Slab>> computed_;  // by variable of schema_
    std::int64_t bytes_read_ = 0;
    std::uint64_t digest_ = 0;
};

}  // namespace

void run_pipeline(const RunOptions& options, const std::string& command_line, const Communicator& communicator, Phases& phases) {
    Run run(options, communicator, phases);
    run.compute();
    run.write(command_line);
}

std::string dry_run(const RunOptions& options, const Communicator& communicator) {
    Phases phases;
    return Run(options, communicator, phases).description();
}

}  // namespace geom
