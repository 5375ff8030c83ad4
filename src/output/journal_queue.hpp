// The journal, written while the run goes on: a thread has a unit on disk while the next one is computed. At most one
// is lost to a kill.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "output/journal.hpp"

namespace geom {

class JournalQueue {
public:
    /// Opens the journal's file of this rank. Throws Error(output). `schema` has to outlive the queue.
    JournalQueue(const std::filesystem::path& folder, const Identity& identity, int rank, const Schema& schema);
    ~JournalQueue();  ///< writes what waits, unless discard() was called
    JournalQueue(const JournalQueue&) = delete;
    JournalQueue& operator=(const JournalQueue&) = delete;

    /// Takes a unit as soon as the one before it is on disk. Throws what an earlier write threw.
    void add(UnitResult result);

    /// Returns when everything is on disk. Throws what a write threw.
    void flush();

    /// What still waits is not written: the result is complete.
    void discard();

private:
    void run();
    void rethrow_failure();  // with the lock held

    JournalWriter writer_;
    const Schema& schema_;
    std::optional<UnitResult> waiting_;
    bool writing_ = false, quit_ = false;
    std::exception_ptr failure_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::thread thread_;
};

}  // namespace geom
