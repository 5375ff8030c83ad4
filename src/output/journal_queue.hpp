// The journal, written while the run goes on: units wait here until a thread has them on disk. At most a few of them
// are lost to a kill.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
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

    /// Takes a unit; waits only while more than `most_waiting` bytes wait already. Throws what an earlier write threw.
    void add(UnitResult result);

    /// Returns when everything is on disk. Throws what a write threw.
    void flush();

    /// What still waits is not written: the result is complete.
    void discard();

    static constexpr std::int64_t most_waiting = std::int64_t{64} << 20;

private:
    void run();
    void rethrow_failure();  // with the lock held

    JournalWriter writer_;
    const Schema& schema_;
    std::deque<UnitResult> waiting_;
    std::int64_t waiting_bytes_ = 0;
    bool writing_ = false, quit_ = false;
    std::exception_ptr failure_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::thread thread_;
};

}  // namespace geom
