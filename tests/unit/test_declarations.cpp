// What every measure declares, of this build and one of each kind that a schedule knows (tests/fakes), on the shapes of
// real models: planned for any number of ranks without MPI, without weights.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "checkpoint/describe_shape.hpp"
#include "derivations/derivation.hpp"
#include "exchange/head_store.hpp"
#include "fakes/fakes.hpp"
#include "measures/measure.hpp"
#include "support/error_of.hpp"
#include "support/plan_checks.hpp"
#include "support/plan_inputs.hpp"

using namespace geom;
using namespace geom::test;

namespace {

const auto backend = make_cpu_backend(1, Isa::portable);

std::vector<Measure> all_measures() {
    std::vector<Measure> all(measures().begin(), measures().end());
    for (const Measure& fake : {fakes::step_measure(), fakes::walk_measure(), fakes::pairs_measure(),
                                fakes::globals_measure(), fakes::experts_measure()})
        all.push_back(fake);
    return all;
}

ModelShape shape_of_model(const std::string& name) {
    const Checkpoint checkpoint = Checkpoint::open("synth:" + name, "", "");
    MeasureSettings settings;
    settings.residual.tokens = 2048;
    for (std::int32_t i = 0; i < 2048; ++i) settings.residual.token_ids.push_back(i * 37 % 1000);
    use_default_phases(settings.residual, checkpoint.config().layers);
    return shape_of(checkpoint, {0, checkpoint.config().layers}, settings);
}

Schema schema_of(const ModelShape& shape, const std::vector<Measure>& chosen) {
    Schema schema;
    schema.add(
        {{layer_scale(shape, "", "layer", shape.all_rows()), layer_scale(shape, "", "layer_b", shape.all_rows())}, {}});
    for (const Measure& measure : chosen) schema.add(measure.declare(shape));
    return schema;
}

// As make_plan(Survey) asks for it.
PlanInput planned(
    const ModelShape& shape, const std::vector<Measure>& chosen, std::int64_t ranks,
    const std::function<bool(const Unit&)>& is_done = [](const Unit&) { return false; }) {
    std::vector<MeasureDemand> demands;
    for (const Measure& measure : chosen) demands.push_back(demand_of(measure, shape, *backend, is_done));
    PlanInput in = input_of(shape, std::move(demands), ranks);
    in.block_bytes = block_format(shape, *backend).bytes;
    in.folded_block_bytes = block_format(shape, *backend, BlockForm::folded).bytes;
    const Schema schema = schema_of(shape, chosen);
    for (const Variable& variable : schema.variables) {
        in.largest_variable = std::max(in.largest_variable, schema.bytes_of(variable));
    }
    return in;
}

class Declarations : public ::testing::TestWithParam<std::tuple<const char*, std::int64_t>> {};

TEST_P(Declarations, of_every_measure_alone_and_of_all_together_are_planned_soundly) {
    const auto& [model, ranks] = GetParam();
    const ModelShape shape = shape_of_model(model);
    std::vector<std::vector<Measure>> choices{all_measures()};
    for (const Measure& measure : all_measures()) choices.push_back({measure});
    for (const std::vector<Measure>& chosen : choices) {
        SCOPED_TRACE(chosen.size() > 1 ? "all measures" : std::string(chosen[0].name));
        const Plan plan = make_plan(planned(shape, chosen, ranks));
        EXPECT_EQ(plan.passes, 1);
        expect_sound(plan);
    }
}

// 32 GiB a rank, or what the error names where that is too small.
TEST_P(Declarations, of_all_measures_are_planned_for_a_small_machine) {
    const auto& [model, ranks] = GetParam();
    const ModelShape shape = shape_of_model(model);
    PlanInput in = planned(shape, all_measures(), ranks);
    in.budget = std::int64_t{32} << 30;
    try {
        expect_sound(make_plan(in));
    } catch (const Error& error) {
        ASSERT_EQ(error.code(), ExitCode::usage);
        const std::string message = error.what();
        const std::string before = message.substr(0, message.find(" bytes are needed"));
        in.budget = std::stoll(before.substr(before.rfind(' ') + 1));
        expect_sound(make_plan(in));
    }
}

INSTANTIATE_TEST_SUITE_P(Models, Declarations,
                         ::testing::Combine(::testing::Values("qwen3-32b", "llama-3.1-405b", "qwen3-30b-a3b"),
                                            ::testing::Values<std::int64_t>(1, 2, 3, 64, 1024)),
                         [](const auto& test) {
                             std::string name = std::get<0>(test.param);
                             for (char& c : name) c = c == '-' || c == '.' ? '_' : c;
                             return fmt::format("{}_on_{}_ranks", name, std::get<1>(test.param));
                         });

class DeclarationsOf : public ::testing::TestWithParam<const char*> {};

TEST_P(DeclarationsOf, units_are_named_after_their_measure_and_there_once) {
    const ModelShape shape = shape_of_model(GetParam());
    for (const Measure& measure : all_measures()) {
        const auto units = measure.units(shape);
        EXPECT_EQ(std::set<Unit>(units.begin(), units.end()).size(), units.size()) << measure.name;
        for (const Unit& unit : units) EXPECT_EQ(unit.measure, measure.name);
        const Needs needs = measure.needs(shape);
        const bool experts_alone = needs.experts && needs.together.empty() && !needs.globals;
        EXPECT_EQ(units.empty(), experts_alone && shape.at(0).experts == 0) << measure.name;
    }
}

TEST_P(DeclarationsOf, variables_are_in_the_measures_group_on_scales_that_are_declared) {
    const ModelShape shape = shape_of_model(GetParam());
    for (const Measure& measure : all_measures()) {
        const Schema schema = schema_of(shape, {measure});
        // spectra: of layers, of weights of no layer, of experts; gram_folded: on gram's scales, beside it
        const std::set<std::string_view> groups =
            measure.name == "spectra"       ? std::set<std::string_view>{"spectra", "spectra_global", "experts"}
            : measure.name == "gram_folded" ? std::set<std::string_view>{"gram"}
                                            : std::set<std::string_view>{measure.name};
        for (const Variable& variable : schema.variables) {
            EXPECT_TRUE(groups.contains(variable.group)) << variable.path();
            EXPECT_GT(schema.bytes_of(variable), 0) << variable.path();  // finds all of its scales
        }
        EXPECT_EQ(schema.variables.empty(), measure.units(shape).empty()) << measure.name;
    }
    EXPECT_NO_THROW(with_derivations(schema_of(shape, all_measures()))) << "equal scales merge, others do not clash";
}

TEST_P(DeclarationsOf, work_and_memory_are_positive_where_they_are_counted) {
    const ModelShape shape = shape_of_model(GetParam());
    for (const Measure& measure : all_measures()) {
        if (measure.work != nullptr) {
            const Work work = measure.work(shape, measure.units(shape));
            EXPECT_GT(work.products + work.fp64, 0) << measure.name;
        }
        if (measure.memory == nullptr) continue;
        const MemoryNeed need = measure.memory(shape, *backend);
        for (const std::int64_t bytes : {need.layer, need.layer_host, need.pair, need.kept, need.kept_host})
            EXPECT_GE(bytes, 0) << measure.name;
    }
}

TEST_P(DeclarationsOf, what_is_done_is_not_owed_and_nothing_is_read_for_it) {
    const ModelShape shape = shape_of_model(GetParam());
    for (const Measure& measure : all_measures()) {
        const MeasureDemand demand = demand_of(measure, shape, *backend, [](const Unit&) { return true; });
        EXPECT_TRUE(demand.owed.empty());
        EXPECT_EQ(make_plan(input_of(shape, {demand}, 3)).bytes_read(), 0) << measure.name;
    }
}

// Every unit done with a chance of one half, and every other one by its place.
TEST_P(DeclarationsOf, what_is_left_of_a_killed_run_is_planned_soundly) {
    const ModelShape shape = shape_of_model(GetParam());
    for (const std::uint64_t seed : {1, 2, 3}) {
        std::uint64_t state = seed;
        const auto is_done = [&](const Unit&) {
            state = state * 6364136223846793005U + 1442695040888963407U;
            return (state >> 63) == 1;
        };
        for (const std::int64_t ranks : {1, 3, 64})
            expect_sound(make_plan(planned(shape, all_measures(), ranks, is_done)));
    }
}

INSTANTIATE_TEST_SUITE_P(Models, DeclarationsOf, ::testing::Values("qwen3-32b", "llama-3.1-405b", "qwen3-30b-a3b"),
                         [](const auto& test) {
                             std::string name = test.param;
                             for (char& c : name) c = c == '-' || c == '.' ? '_' : c;
                             return name;
                         });

}  // namespace
