#include "output/recorder.hpp"

#include <fmt/format.h>

#include "core/error.hpp"
#include "mpi/agreement.hpp"

namespace geom {

namespace {

// Results of killed runs that never got their name.
void remove_abandoned(const std::filesystem::path& file) {
    const std::string prefix = file.filename().string() + ".tmp.";
    const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().filename().string().rfind(prefix, 0) == 0) std::filesystem::remove(entry.path());
    }
}

}  // namespace

Recorder::Recorder(const RunToRecord& run, const Communicator& communicator, bool fresh)
    : run_(run), communicator_(communicator), folder_(journal_folder(run.file)), slabs_(run.schema.variables.size()) {
    agree_on(communicator_, [&] {
        if (communicator_.rank() != 0) return;
        if (fresh) remove_journal(folder_);
        if (std::filesystem::exists(folder_)) remove_abandoned(run.file);
    });
    agree_on(communicator_, [&] { read(); });
}

void Recorder::open() {
    agree_on(communicator_, [&] {
        queue_ = std::make_unique<JournalQueue>(folder_, run_.identity, communicator_.rank(), run_.schema);
    });
}

void Recorder::read() {
    const JournalContents contents = read_journal(folder_, run_.identity, run_.schema, [&](UnitResult&& result) {
        if (!run_.units.contains(result.unit)) {
            leave_alone(result.unit);
            return;
        }
        done_.insert(result.unit);
        if (std::ssize(done_) % communicator_.size() == communicator_.rank()) keep(std::move(result));
    });
    for (const Unit& unit : contents.foreign) leave_alone(unit);
    if (contents.differences.empty()) return;
    throw Error(
        ExitCode::usage,
        fmt::format("{}: the journal of another run: {}; go on with the options it was made with, or start anew "
                    "with --fresh",
                    folder_.string(), text_of(contents.differences)));
}

void Recorder::leave_alone(const Unit& unit) {
    if (!run_.copied.contains(unit.measure)) ++left_alone_;
}

void Recorder::keep(UnitResult&& result) {
    for (Slab& slab : result.slabs) {
        const auto variable = static_cast<std::size_t>(slab.variable);
        slabs_[variable].push_back(std::move(slab));
    }
}

void Recorder::take(UnitResult result) {
    const Unit& unit = result.unit;
    const bool declared = run_.units.contains(unit);
    if (!declared || done_.contains(unit) || !taken_.insert(unit).second) {
        throw Error(ExitCode::internal,
                    fmt::format("unit {} {} {} of kind {} was emitted {}", unit.measure, unit.first, unit.second,
                                static_cast<int>(unit.of), declared ? "twice" : "and never declared"));
    }
    queue_->add(result);
    keep(std::move(result));
}

void Recorder::finish() {
    queue_->discard();
    queue_.reset();
    communicator_.barrier();
    if (communicator_.rank() == 0 && left_alone_ == 0) remove_journal(folder_);
}

}  // namespace geom
