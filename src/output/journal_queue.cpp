#include "output/journal_queue.hpp"

#include <utility>

namespace geom {

namespace {

std::int64_t bytes_of(const UnitResult& result) {
    std::int64_t bytes = 0;
    for (const Slab& slab : result.slabs) bytes += static_cast<std::int64_t>(slab.data.size());
    return bytes;
}

}  // namespace

JournalQueue::JournalQueue(const std::filesystem::path& folder, const Identity& identity, int rank,
                           const Schema& schema)
    : writer_(folder, identity, rank), schema_(schema), thread_([this] { run(); }) {}

JournalQueue::~JournalQueue() {
    {
        const std::lock_guard lock(mutex_);
        quit_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void JournalQueue::add(UnitResult result) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_bytes_ <= most_waiting || failure_; });
    rethrow_failure();
    waiting_bytes_ += bytes_of(result);
    waiting_.push_back(std::move(result));
    changed_.notify_all();
}

void JournalQueue::flush() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return (waiting_.empty() && !writing_) || failure_; });
    rethrow_failure();
}

void JournalQueue::discard() {
    const std::lock_guard lock(mutex_);
    waiting_.clear();
    waiting_bytes_ = 0;
    changed_.notify_all();
}

void JournalQueue::rethrow_failure() {
    if (failure_) std::rethrow_exception(failure_);
}

void JournalQueue::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return !waiting_.empty() || quit_; });
        if (waiting_.empty() || failure_) return;
        const UnitResult result = std::move(waiting_.front());
        waiting_.pop_front();
        writing_ = true;
        lock.unlock();
        std::exception_ptr failure;
        try {
            writer_.append(result, schema_);
        } catch (...) {
            failure = std::current_exception();
        }
        lock.lock();
        writing_ = false;
        waiting_bytes_ -= bytes_of(result);
        failure_ = failure;
        changed_.notify_all();
    }
}

}  // namespace geom
