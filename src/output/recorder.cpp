#include "output/recorder.hpp"

#include <fmt/format.h>

#include "core/error.hpp"
#include "mpi/agreement.hpp"

namespace geom {

namespace {

// What is lost of a journal, in words.
std::string damage_of(const JournalContents& contents) {
    std::string text = contents.unreadable.empty() ? "" : contents.unreadable.front();
    if (contents.unreadable.size() > 1) text += fmt::format(", and {} more files", contents.unreadable.size() - 1);
    if (contents.torn_files > 0)
        text += fmt::format("{}{} of its files end in a torn or damaged record; what followed is computed again",
                            text.empty() ? "" : "; ", contents.torn_files);
    return text;
}

}  // namespace

Recorder::Recorder(const RunToRecord& run, const Communicator& communicator, bool fresh)
    : run_(run), communicator_(communicator), folder_(journal_folder(run.file)), slabs_(run.schema.variables.size()) {
    agree_on(communicator_, [&] {
        if (communicator_.rank() != 0) return;
        if (fresh) remove_journal(folder_);
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
        for (const RowsRead& rows : result.read) read_.add(rows);
        if (std::ssize(done_) % communicator_.size() == communicator_.rank()) keep(std::move(result));
    });
    for (const Unit& unit : contents.foreign) leave_alone(unit);
    damage_ = damage_of(contents);
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
    for (const RowsRead& rows : result.read) read_.add(rows);
    queue_->add(result);
    keep(std::move(result));
}

std::uint64_t Recorder::weights_digest() const {
    WeightsDigest all;
    const std::vector<std::string> messages = communicator_.all_gather(bytes_of(read_.rows()));
    agree_on(communicator_, [&] {
        for (const std::string& bytes : messages) {
            for (const RowsRead& rows : rows_of(bytes)) all.add(rows);
        }
    });
    return all.sum();
}

void Recorder::finish() {
    queue_->discard();
    queue_.reset();
    communicator_.barrier();
    remove();
}

void Recorder::remove() const {
    agree_on(communicator_, [&] {
        if (communicator_.rank() == 0 && left_alone_ == 0) remove_journal(folder_);
    });
}

}  // namespace geom
