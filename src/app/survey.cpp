#include "app/survey.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "app/choose_backend.hpp"
#include "app/residual_input.hpp"
#include "checkpoint/describe_shape.hpp"
#include "core/error.hpp"
#include "derivations/analysis.hpp"
#include "derivations/variation_ranking.hpp"
#include "output/result_file.hpp"
#include "output/run_record.hpp"

namespace geom {

namespace {

/// What MPI, HDF5 and the threads' stacks take beside the numbers, as measured on small runs.
constexpr std::int64_t writing_reserve = std::int64_t{8} << 20;

// The measures that were asked for, or all that run unasked, in the order of measures().
std::vector<const Measure*> chosen_measures(const RunOptions& options) {
    std::vector<const Measure*> chosen;
    for (const Measure& measure : measures()) {
        const bool named =
            std::find(options.measures.begin(), options.measures.end(), measure.name) != options.measures.end();
        // legacy/NAME stands after NAME
        const bool legacy = options.legacy && std::any_of(chosen.begin(), chosen.end(), [&](const Measure* other) {
                                return measure.name == "legacy/" + std::string(other->name);
                            });
        // gram_folded stands after gram
        const bool folded = options.folded && measure.name == "gram_folded";
        if (folded && (chosen.empty() || chosen.front()->name != "gram"))
            throw Error(ExitCode::usage, "--folded: it is the measure gram once more; name it as well (-m gram,...)");
        if (legacy || folded || (options.measures.empty() ? measure.by_default : named)) chosen.push_back(&measure);
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

std::filesystem::path output_file(const RunOptions& options, const Checkpoint& checkpoint) {
    if (!options.output.empty()) return options.output;
    std::string name = checkpoint.name();
    for (std::size_t at = 0; (at = name.find_first_of("/:?&=", at)) != std::string::npos;) {
        name.replace(at, 1, name[at] == '/' ? "--" : "-");
    }
    return name + ".geom.h5";
}

bool has_residual(const std::vector<const Measure*>& measures) {
    return std::any_of(measures.begin(), measures.end(), [](const Measure* one) { return one->name == "residual"; });
}

// What residual goes over, if it may be wanted. A measure that nobody named does not stop the others.
void find_residual_input(const RunOptions& options, Survey& survey) {
    if (!has_residual(survey.measures) && !options.add) return;
    try {
        ResidualInput input = residual_input(options, survey.checkpoint, survey.shape);
        survey.shape.settings.residual = std::move(input.settings);
        survey.residual_identity = std::move(input.identity);
        survey.note = std::move(input.note);
    } catch (const Error& error) {
        if (!options.measures.empty() && has_residual(survey.measures)) throw;
        if (names_residual_input(options)) throw;
        survey.no_residual = error;
        if (!has_residual(survey.measures)) return;
        survey.left_out.push_back(fmt::format("residual: {}", error.what()));
        std::erase_if(survey.measures, [](const Measure* one) { return one->name == "residual"; });
    }
}

// What has to be equal for recorded units to be this run's, whatever the measures.
Identity identity_of(const Survey& survey) {
    const std::string& path = survey.format.path;
    Identity identity{{"geom-mpi version", GEOM_VERSION},
                      {"model", survey.checkpoint.name()},
                      {"commit", survey.checkpoint.commit()},
                      {"fingerprint", survey.fingerprint},
                      {"family", survey.shape.family},
                      {"layers", fmt::format("{}:{}", survey.layers.begin, survey.layers.end)},
                      {"top-k", fmt::format("{}", survey.shape.settings.top_k)},
                      {"products", survey.backend->on_device() ? path + " on " + survey.backend->device() : path}};
    if (has_residual(survey.measures)) identity["residual"] = survey.residual_identity;
    return identity;
}

// Schema and units of the measures that are computed, schema of all in the file.
void declare(Survey& survey) {
    const ModelShape& shape = survey.shape;
    survey.run = {survey.run.file, {}, {}, survey.run.identity, {}};
    for (const Measure* measure : survey.copied) survey.run.copied.emplace(measure->name);
    survey.measured = {
        {layer_scale(shape, "", "layer", shape.all_rows()), layer_scale(shape, "", "layer_b", shape.all_rows())}, {}};
    for (const Measure& measure : measures()) {
        const auto among = [&](const std::vector<const Measure*>& some) {
            return std::find(some.begin(), some.end(), &measure) != some.end();
        };
        if (among(survey.measures) || among(survey.copied)) survey.measured.add(measure.declare(shape));
        if (!among(survey.measures)) continue;
        survey.run.schema.add(measure.declare(shape));
        for (Unit& unit : measure.units(shape)) survey.run.units.insert(std::move(unit));
    }
}

}  // namespace

OpenedCheckpoint open_checkpoint(const RunOptions& options) {
    OpenedCheckpoint opened{Checkpoint::open(options.model, options.revision, options.family), {}};
    if (!options.dry_run || options.add) opened.fingerprint = fingerprint_of(opened.checkpoint);
    return opened;
}

Survey make_survey(const RunOptions& options, const Machine& machine, OpenedCheckpoint opened) {
    Survey survey;
    survey.machine = machine;
    survey.checkpoint = std::move(opened.checkpoint);
    survey.fingerprint = std::move(opened.fingerprint.digest);
    survey.layers = chosen_layers(options, survey.checkpoint.config());
    survey.block = options.block.value_or(survey.layers);
    if (options.block) check_block(survey.block, survey.layers);
    survey.shape = shape_of(survey.checkpoint, survey.layers, {options.top_k});
    survey.measures = chosen_measures(options);
    find_residual_input(options, survey);
    check_address_space(machine.threads);
    survey.backend = make_backend(options.backend, machine);
    survey.format = block_format(survey.shape, *survey.backend);
    survey.run.file = output_file(options, survey.checkpoint);
    survey.run.identity = identity_of(survey);
    declare(survey);
    survey.derivation_settings = {options.anchor};
    check_anchor(with_derivations(survey.measured), survey.derivation_settings);
    return survey;
}

void add_to_result(Survey& survey) {
    const std::string file = survey.run.file.string();
    if (!std::filesystem::exists(survey.run.file))
        throw Error(ExitCode::input, fmt::format("--add: {} is not there; without --add a run makes it", file));
    const ResultReader result(survey.run.file);
    Identity recorded = identity_of_text(result.text_attribute("", "identity"));
    if (!recorded.contains("residual")) {
        survey.run.identity.erase("residual");
    } else {  // its numbers stay: what they are of has to be known again
        if (survey.no_residual) throw Error(*survey.no_residual);
        survey.run.identity["residual"] = survey.residual_identity;
    }
    const auto differences = differences_between(recorded, survey.run.identity);
    if (!differences.empty()) {
        throw Error(ExitCode::usage,
                    fmt::format("--add: {} is the result of another run: {}; add to it with the options it was made "
                                "with, or name another file with -o",
                                file, text_of(differences)));
    }
    std::string names = result.text_attribute("", "measures") + ",";
    for (std::size_t end = 0; !names.empty(); names.erase(0, end + 1)) {
        end = names.find(',');
        const Measure* measure = find_measure(names.substr(0, end));
        if (measure == nullptr) {
            throw Error(ExitCode::usage, fmt::format("--add: {} holds the measure {}, which this version does not have",
                                                     file, names.substr(0, end)));
        }
        survey.copied.push_back(measure);
        std::erase(survey.measures, measure);
    }
    if (has_residual(survey.copied)) survey.shape.settings.residual.legacy = result.has("legacy/residual/frob");
    if (has_residual(survey.measures)) survey.run.identity["residual"] = survey.residual_identity;
    declare(survey);
}

std::vector<std::string> measures_in_file(const Survey& survey) {
    std::vector<std::string> names;
    for (const Measure& measure : measures()) {
        for (const auto* some : {&survey.measures, &survey.copied}) {
            if (std::find(some->begin(), some->end(), &measure) != some->end()) names.emplace_back(measure.name);
        }
    }
    return names;
}

Plan make_plan(const Survey& survey, const std::set<Unit>& done, int ranks) {
    PlanInput input;
    input.shape = survey.shape;
    for (const Measure* measure : survey.measures) {
        input.measures.push_back(
            demand_of(*measure, survey.shape, *survey.backend, [&](const Unit& unit) { return done.contains(unit); }));
    }
    input.ranks = ranks;
    input.block_bytes = survey.format.bytes;
    input.folded_block_bytes = block_format(survey.shape, *survey.backend, BlockForm::folded).bytes;
    input.budget = survey.machine.budget;
    input.process_bytes = survey.machine.resident + writing_reserve;
    input.device = survey.backend->on_device();
    input.device_budget = survey.machine.device_budget;
    input.device_process_bytes = gpu_reserve();
    input.exchange_on_host = !exchanges_on_device(survey.machine, ranks);
    for (const Variable& variable : survey.measured.variables)
        input.largest_variable = std::max(input.largest_variable, survey.measured.bytes_of(variable));
    return make_plan(input);
}

}  // namespace geom
