#include "app/publish.hpp"

#include <filesystem>
#include <vector>

#include "app/fault.hpp"
#include "core/error.hpp"
#include "measures/analysis.hpp"
#include "mpi/agreement.hpp"
#include "output/assemble.hpp"
#include "output/result_file.hpp"

namespace geom {

namespace {

class Publication {
public:
    Publication(const Survey& survey, RunRecord& run, Recorder& recorder, const Communicator& communicator,
                Phases& phases)
        : survey_(survey),
          run_(run),
          recorder_(recorder),
          communicator_(communicator),
          phases_(phases),
          schema_(with_run_and_analysis(survey.schema, run)),
          temporary_(communicator.broadcast(
              communicator.rank() == 0 ? temporary_name(survey.file).string() : std::string(), 0)) {}

    Cosines write() {
        try {
            phases_.time("write", [&] {
                on_rank_0([&] { create_skeleton(temporary_, schema_, root_attributes(run_, survey_)); });
            });
            for (std::size_t v = 0; v < survey_.schema.variables.size(); ++v) write_variable(v);
            const Cosines cosines = analyse();
            run_.phases = phases_.over_ranks(phase_names(run_.measures), communicator_);
            run_.peak_bytes = communicator_.all_reduce_max(peak_resident_bytes());
            run_.peak_device_bytes = communicator_.all_reduce_max(peak_gpu_bytes());
            on_rank_0([&] {
                append(temporary_, schema_, run_slabs(run_, schema_), {});
                finish(temporary_, survey_.file);
            });
            return cosines;
        } catch (const AgreedError&) {
            if (communicator_.rank() == 0) std::filesystem::remove(temporary_);
            throw;
        }
    }

private:
    template <class F>
    void on_rank_0(F&& f) {
        agree_on(communicator_, [&] {
            if (communicator_.rank() == 0) f();
        });
    }

    // A variable at a time, so that its numbers exist twice only while they are on their way.
    void write_variable(std::size_t variable) {
        std::vector<Slab> slabs;
        phases_.time("assemble", [&] {
            slabs = assemble(schema_, recorder_.give(variable), communicator_);
            if (communicator_.all_reduce_sum(static_cast<std::int64_t>(slabs.size())) == 0) {
                throw Error(ExitCode::internal, schema_.variables[variable].path() + " was not computed");
            }
        });
        phases_.time("write", [&] {
            maybe_fail("write", communicator_.rank());
            agree_on(communicator_, [&] { write_slabs(temporary_, schema_, slabs, communicator_); });
            agree_on(communicator_, [&] { verify_slabs(temporary_, schema_, slabs); });
        });
    }

    // From the numbers as written: what would come of the finished file.
    Cosines analyse() {
        Cosines cosines;
        phases_.time("analysis", [&] {
            on_rank_0([&] {
                if (schema_.find("analysis/cos") < 0) return;
                const auto gram = ResultReader(temporary_, true).read("gram/gram");
                cosines = cosines_of(gram, survey_.layers.size(), survey_.checkpoint.config().heads);
                append(temporary_, schema_, to_slabs(cosines, schema_), {});
            });
        });
        return cosines;
    }

    const Survey& survey_;
    RunRecord& run_;
    Recorder& recorder_;
    Communicator communicator_;
    Phases& phases_;
    Schema schema_;  // the survey's, with analysis and run behind it
    std::filesystem::path temporary_;
};

}  // namespace

Cosines publish(const Survey& survey, RunRecord& run, Recorder& recorder, const Communicator& communicator,
                Phases& phases) {
    return Publication(survey, run, recorder, communicator, phases).write();
}

}  // namespace geom
