// What survives a kill: every finished unit of work, appended to a file of its rank in FILE.journal/.
//
//   rank-00003.0    head | record | record | ... | (torn tail of a crash)
//   head    magic, version, length, checksum; then the identity of the run, and its checksum
//   record  magic, length, checksum; then the unit, its slabs and the rows it was computed from, and their checksum
//
// A resumed run writes new files (rank-00003.1) and reads all that are there, whoever wrote them: it may have another
// number of ranks. Slabs name their variable by path, so a schema may grow. Numbers are little-endian.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "output/records.hpp"

namespace geom {

/// What has to be equal for a recorded unit to be this run's: model, commit, fingerprint, options that change
/// results, program version.
using Identity = std::map<std::string, std::string>;

/// The folder of a result's journal: FILE.journal.
std::filesystem::path journal_folder(const std::filesystem::path& file);

class JournalWriter {
public:
    /// Makes the folder if need be and a new file in it, on disk when this returns. Throws Error(output).
    JournalWriter(const std::filesystem::path& folder, const Identity& identity, int rank);
    ~JournalWriter();
    JournalWriter(const JournalWriter&) = delete;
    JournalWriter& operator=(const JournalWriter&) = delete;

    /// On disk when this returns. Throws Error(output) when the disk is full; what was written of the record is then
    /// taken back, and the journal can be used further.
    void append(const UnitResult& result, const Schema& schema);

    const std::filesystem::path& file() const noexcept { return file_; }

private:
    void write_record(const std::string& record);

    std::filesystem::path file_;
    int descriptor_ = -1;
    std::int64_t end_ = 0;  ///< of the last whole record
};

/// An entry of the identity in which the journal and this run differ; "" where one has no such entry.
struct IdentityDifference {
    std::string key;
    std::string recorded;
    std::string wanted;
};

std::vector<IdentityDifference> differences_between(const Identity& recorded, const Identity& wanted);

/// "top-k was '8' and is '3', ..."
std::string text_of(const std::vector<IdentityDifference>& differences);

struct JournalContents {
    std::vector<IdentityDifference> differences;  ///< when there are any, no unit was handed out
    std::vector<std::string> unreadable;          ///< files without a whole head, with the reason; for a warning
    std::int64_t files = 0;                       ///< that were read
    std::int64_t units = 0;                       ///< handed out
    std::int64_t repeated = 0;                    ///< recorded before: the first one counts
    std::set<Unit> foreign;                       ///< of variables or shapes that this schema does not have
    std::int64_t torn_files = 0;                  ///< that end in a torn or damaged record: what follows it is lost
};

/// Hands every unit of the folder to `take`, one at a time, in the same order on every rank: by rank, by age of the
/// file, by place in it. A folder that is not there is an empty journal. Throws Error(output) when it cannot be read.
JournalContents read_journal(const std::filesystem::path& folder, const Identity& identity, const Schema& schema,
                             const std::function<void(UnitResult&&)>& take);

/// Deletes the journal's files, and the folder when nothing else is in it. Throws Error(output).
void remove_journal(const std::filesystem::path& folder);

}  // namespace geom
