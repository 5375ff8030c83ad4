// The place a result goes to: whether it may be written, who else writes it, the name it has until it is complete.
//
//   FILE.lock             held by the run that is writing FILE: host, process, job
//   FILE.tmp.HOST.PID     the result in the making
//   FILE.journal/         finished units (output/journal.hpp)
#pragma once

#include <filesystem>
#include <string>

namespace geom {

/// Throws Error(output) when `file` exists and may not be overwritten, is no regular file, or its folder is missing or
/// not writable. Leaves nothing behind.
void check_output(const std::filesystem::path& file, bool overwrite);

/// The same for a file that is written as it is: a device or a pipe will do.
void check_side_output(const std::filesystem::path& file);

/// True when both names lead to one file, or would if they were written.
bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

/// The name a result is written under until it is complete: FILE.tmp.HOST.PID, in the same folder. For rank 0 to
/// choose.
std::filesystem::path temporary_name(const std::filesystem::path& file);

/// Deletes what killed runs left under such names; for the holder of the lock. Throws Error(output).
void remove_abandoned(const std::filesystem::path& file);

/// On disk when this returns. Throws Error(output).
void sync_file(const std::filesystem::path& file);

/// Gives a complete file its name, for good when this returns. Without `overwrite` a file that has appeared under that
/// name stays. Throws Error(output).
void give_name(const std::filesystem::path& temporary, const std::filesystem::path& file, bool overwrite);

/// FILE.lock, held from construction to destruction, by one process at a time; the system gives it back when that one
/// dies, on whatever host, so that the file a killed run has left means nothing.
class OutputLock {
public:
    /// Throws Error(output) naming who holds it.
    explicit OutputLock(const std::filesystem::path& file);
    ~OutputLock();
    OutputLock(const OutputLock&) = delete;
    OutputLock& operator=(const OutputLock&) = delete;

private:
    std::filesystem::path lock_;
    int descriptor_ = -1;
};

}  // namespace geom
