#include "app/publish.hpp"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <vector>

#include "app/failure.hpp"
#include "app/fault.hpp"
#include "core/error.hpp"
#include "derivations/derivation.hpp"
#include "output/assemble.hpp"
#include "output/output_path.hpp"
#include "output/result_file.hpp"
#include "output/write_slabs.hpp"

namespace geom {

namespace {

class Publication {
public:
    Publication(const Survey& survey, bool overwrite, RunRecord& run, Recorder& recorder,
                const Communicator& communicator, Phases& phases)
        : survey_(survey),
          overwrite_(overwrite),
          run_(run),
          recorder_(recorder),
          communicator_(communicator),
          phases_(phases),
          phase_names_(phase_names(survey)),
          derivable_(survey.measured),
          schema_(with_derivations(survey.measured)),
          temporary_(communicator.broadcast(
              communicator.rank() == 0 ? temporary_name(survey.run.file).string() : std::string(), 0)) {
        schema_.add(run_schema(phase_names_, run.planned_device_bytes > 0));
    }

    void write() {
        try {
            const std::vector<Attribute> attributes = root_attributes(run_);
            on_rank_0("write", [&] { create_skeleton(temporary_, schema_, attributes); });
            for (std::size_t v = 0; v < survey_.measured.variables.size(); ++v) write_variable(v);
            for (const Derivation& derivation : derivations()) derive(derivation);
            run_.phases = phases_.over_ranks(phase_names_, communicator_);
            run_.peak_bytes = communicator_.all_reduce_max(peak_resident_bytes());
            run_.peak_device_bytes = communicator_.all_reduce_max(peak_gpu_bytes());
            on_rank_0("write", [&] {
                const std::vector<Slab> slabs = run_slabs(run_, schema_);
                written(slabs);
                append(temporary_, schema_, slabs, {complete_attribute()});
            });
            verify_all(attributes);
            on_rank_0("write", [&] { give_name(temporary_, survey_.run.file, overwrite_); });
        } catch (const AgreedError&) {
            std::error_code ignored;  // what went wrong is told, whatever becomes of this
            if (communicator_.rank() == 0) std::filesystem::remove(temporary_, ignored);
            throw;
        }
    }

private:
    /// The phases of /run, in the order of the data path; "total" last.
    static std::vector<std::string> phase_names(const Survey& survey) {
        std::vector<std::string> names = {"start", "load", "exchange"};
        for (const Measure* measure : survey.measures) names.emplace_back(measure->name);
        for (const char* name : {"wait", "assemble", "write"}) names.emplace_back(name);
        for (const Derivation& derivation : derivations()) names.emplace_back(derivation.name);
        names.emplace_back("total");
        return names;
    }

    // What is wrong with the file in the making is no fault of the input.
    template <class F>
    void on_rank_0(const std::string& phase, F&& f) {
        if (communicator_.rank() == 0) {
            together(phase, [&] { as_output_failure(f); });
        } else {
            Failure().agree(communicator_, phases_);
        }
    }

    template <class F>
    static void as_output_failure(F&& f) {
        try {
            f();
        } catch (const Error& error) {
            if (error.code() != ExitCode::input) throw;
            throw Error(ExitCode::output, error.what());
        }
    }

    // On every rank; what the others take longer is waiting.
    template <class F>
    void together(const std::string& phase, F&& f) {
        Failure failure;
        phases_.time(phase, [&] { failure.keep(f); });
        failure.agree(communicator_, phases_);
    }

    void written(std::span<const Slab> slabs) {
        std::vector<Checksum> checksums = checksums_of(schema_, slabs);
        std::move(checksums.begin(), checksums.end(), std::back_inserter(written_));
    }

    // Each rank reads what the next one wrote: its own would come from its node's memory.
    void verify_all(const std::vector<Attribute>& attributes) {
        const auto size = static_cast<std::size_t>(communicator_.size()),
                   rank = static_cast<std::size_t>(communicator_.rank());
        std::vector<std::string> sends(size);
        sends[(rank + size - 1) % size] = bytes_of(written_);
        const std::vector<std::string> received = communicator_.all_to_all(sends);
        together("write", [&] { verify(temporary_, schema_, checksums_of(received[(rank + 1) % size])); });
        on_rank_0("write", [&] {
            verify_structure(temporary_, schema_, attributes);
            verify_structure(temporary_, {}, {complete_attribute()});
        });
    }

    // A variable at a time, so that its numbers exist twice only while they are on their way.
    void write_variable(std::size_t v) {
        const std::string path = survey_.measured.variables[v].path();
        const std::int64_t computed = survey_.run.schema.find(path);
        std::vector<Slab> slabs;
        together("assemble", [&] {
            slabs = computed >= 0 ? computed_slabs(static_cast<std::size_t>(computed), v) : copied_slabs(v);
        });
        if (communicator_.all_reduce_sum(static_cast<std::int64_t>(slabs.size())) == 0)
            throw Error(ExitCode::internal, path + " was not computed");
        together("write", [&] { maybe_fail("write", communicator_.rank()); });
        together("write", [&] {
            written(slabs);
            write_slabs(temporary_, schema_, slabs, communicator_);
        });
    }

    std::vector<Slab> computed_slabs(std::size_t computed, std::size_t v) {
        std::vector<Slab> mine = recorder_.give(computed);
        for (Slab& slab : mine) slab.variable = static_cast<std::int64_t>(v);  // of the file's schema
        return assemble(schema_, mine, communicator_);
    }

    // This rank's rows of a variable that the earlier result has.
    std::vector<Slab> copied_slabs(std::size_t v) const {
        const Variable& variable = schema_.variables[v];
        Slab slab = own_rows(schema_, static_cast<std::int64_t>(v), communicator_);
        if (slab.data.empty()) return {};
        const ResultReader earlier(survey_.run.file);
        if (earlier.shape(variable.path()) != schema_.shape_of(variable)) {
            throw Error(ExitCode::input, survey_.run.file.string() + ": " + variable.path() +
                                             " has another shape than this model and these options give it");
        }
        earlier.read_bytes(variable.path(), variable.type, slab.start, slab.count, slab.data);
        std::vector<Slab> slabs;
        slabs.push_back(std::move(slab));
        return slabs;
    }

    // From the numbers as written: what would come of the finished file.
    void derive(const Derivation& derivation) {
        on_rank_0(std::string(derivation.name), [&] {
            if (derivation.declare(derivable_).variables.empty()) return;
            ResultEditor editor(temporary_);
            derivation.compute({editor.reader(), schema_, survey_.derivation_settings,
                                [&](const Slab& slab) {
                                    editor.write(schema_, slab);
                                    written({&slab, 1});
                                    communicator_.at_work(true);
                                },
                                [&](const Attribute& attribute) { editor.set(attribute); }});
            editor.close();
            derivable_.add(derivation.declare(derivable_));
        });
    }

    const Survey& survey_;
    bool overwrite_;
    RunRecord& run_;
    Recorder& recorder_;
    Communicator communicator_;
    Phases& phases_;
    std::vector<std::string> phase_names_;
    Schema derivable_;  // what is measured, and on rank 0 what is derived so far
    Schema schema_;     // of the file: what is measured, then what is derived, then /run
    std::filesystem::path temporary_;
    std::vector<Checksum> written_;  // by this rank
};

}  // namespace

void publish(const Survey& survey, bool overwrite, RunRecord& run, Recorder& recorder, const Communicator& communicator,
             Phases& phases) {
    Publication(survey, overwrite, run, recorder, communicator, phases).write();
}

}  // namespace geom
