#include "app/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/bench_parts.hpp"
#include "app/choose_backend.hpp"
#include "app/machine.hpp"
#include "core/error.hpp"

namespace geom {

namespace {

class Bench {
public:
    Bench(const BenchOptions& options, const Communicator& communicator)
        : options_(options), machine_(inspect_machine({options.threads, 0, options.backend != "cpu"}, communicator)) {
        choose_parts();
        backend_ = make_backend(options.backend, machine_);
        collectives_ = make_collectives(*backend_, machine_, communicator);
        shape_ = std::make_unique<Checkpoint>(Checkpoint::open("synth:" + options.shape, "", ""));
        if (!options.model.empty()) model_ = std::make_unique<Checkpoint>(Checkpoint::open(options.model, "", ""));
        const bool loads = std::find(parts_.begin(), parts_.end(), "load") != parts_.end();
        if (loads && model_->files().empty()) {
            throw Error(ExitCode::usage,
                        "bench load: synthetic weights are not read from storage; --model takes a folder "
                        "(geom-mpi synth SHAPE DIR writes one)");
        }
    }

    void run() {
        const auto parts = make_bench_parts(parts_, *shape_, model_.get(), *backend_, *collectives_);
        for (std::int64_t turn = 0; turn < options_.repeat; ++turn) {
            for (const auto& part : parts) part->once(table_);
        }
        table_.add("peak memory", "GiB", static_cast<double>(peak_resident_bytes()) / (1 << 30));
        if (peak_gpu_bytes() > 0)
            table_.add("peak GPU memory", "GiB", static_cast<double>(peak_gpu_bytes()) / (1 << 30));
    }

    void speak() const {
        fmt::print(options_.json == "-" ? stderr : stdout, "machine   {}\nshape     {}, {} times in turn\n\n{}",
                   machine_text(), options_.shape, options_.repeat, table_.text());
        if (options_.json.empty()) return;
        const nlohmann::ordered_json object = {{"machine", machine_text()},   {"threads", machine_.threads},
                                               {"backend", backend_->name()}, {"shape", options_.shape},
                                               {"model", options_.model},     {"repeat", options_.repeat},
                                               {"rows", table_.json()}};
        if (options_.json == "-") {
            fmt::print("{}\n", object.dump(2));
            return;
        }
        std::ofstream out(options_.json);
        out << object.dump(2) << "\n";
        if (!out.flush())
            throw Error(ExitCode::output, fmt::format("{}: the JSON object cannot be written", options_.json));
    }

private:
    // The parts that were named, or every part that has what it needs.
    void choose_parts() {
        const auto known = bench_part_names();
        for (const std::string& part : options_.parts) {
            if (std::find(known.begin(), known.end(), part) == known.end()) {
                throw Error(ExitCode::usage,
                            fmt::format("bench {}: no part of that name; there are {}", part, fmt::join(known, ", ")));
            }
            if (part == "load" && options_.model.empty()) {
                throw Error(ExitCode::usage, "bench load needs a checkpoint on disk: --model FOLDER");
            }
        }
        parts_ = options_.parts;
        if (!parts_.empty()) return;
        for (const std::string_view part : known) {
            if (part != "load" || !options_.model.empty()) parts_.emplace_back(part);
        }
    }

    std::string machine_text() const {
        return fmt::format("{}, {} thread{}, {}; {}, {}", backend_->device(), machine_.threads,
                           machine_.threads == 1 ? "" : "s", name_of(machine_.isa), backend_->library(), GEOM_COMPILED);
    }

    const BenchOptions& options_;
    Machine machine_;
    std::vector<std::string> parts_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Collectives> collectives_;
    std::unique_ptr<Checkpoint> shape_, model_;
    BenchTable table_;
};

}  // namespace

void run_bench(const BenchOptions& options, const Communicator& communicator) {
    if (communicator.size() > 1) {
        throw Error(ExitCode::usage,
                    "bench times one rank; start it without mpirun (tests/bench/bench.py times runs of several)");
    }
    Bench bench(options, communicator);
    bench.run();
    bench.speak();
}

}  // namespace geom
