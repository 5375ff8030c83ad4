#include "app/commands.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "app/analyze.hpp"
#include "app/bench.hpp"
#include "app/machine.hpp"
#include "app/page.hpp"
#include "app/pipeline.hpp"
#include "app/print_tokens.hpp"
#include "app/selfcheck.hpp"
#include "checkpoint/synthetic.hpp"
#include "mpi/agreement.hpp"

namespace geom {

namespace {

void write_synthetic(const SynthOptions& options) {
    const SyntheticModel model = parse_synthetic(options.shape);
    write_synthetic_checkpoint(model, options.folder);
    fmt::print("{}: synthetic checkpoint {} written; look at it with geom-mpi --model {}\n", options.folder,
               options.shape, options.folder);
}

void print_plan(const RunOptions& options, const Communicator& communicator) {
    const PlanReport report = dry_run(options, communicator);
    agree_on(communicator, [&] {
        if (communicator.rank() == 0) print_both(report.text, report.object, options.json);
    });
}

void run_selfcheck(const SelfcheckOptions& options, const Communicator& communicator) {
    const Machine machine = inspect_machine({options.threads, 0, false}, communicator);
    agree_on(communicator, [&] {
        if (communicator.rank() == 0) selfcheck(options, machine.threads);
    });
}

}  // namespace

int run_command(const Options& options, const Communicator& communicator, Phases& phases) {
    switch (options.command) {
        case Command::nothing:
            if (communicator.rank() == 0) fmt::print(options.exit_code == 0 ? stdout : stderr, "{}", options.message);
            return options.exit_code;
        case Command::info:
            print_plan(options.run, communicator);
            return 0;
        case Command::analyze:
            agree_on(communicator, [&] {
                if (communicator.rank() == 0) analyze(options.analyze);
            });
            return 0;
        case Command::synth:
            agree_on(communicator, [&] {
                if (communicator.rank() == 0) write_synthetic(options.synth);
            });
            return 0;
        case Command::tokens:
            agree_on(communicator, [&] {
                if (communicator.rank() == 0) print_tokens(options.tokens);
            });
            return 0;
        case Command::bench:
            agree_on(communicator, [&] { run_bench(options.bench, communicator); });
            return 0;
        case Command::selfcheck:
            run_selfcheck(options.selfcheck, communicator);
            return 0;
        case Command::run:
            break;
    }
    if (options.run.dry_run) {
        print_plan(options.run, communicator);
    } else {
        run_pipeline(options.run, options.command_line, communicator, phases);
    }
    return 0;
}

}  // namespace geom
