#include "output/journal_queue.hpp"

#include <utility>

namespace geom {

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
    changed_.wait(lock, [&] { return (!waiting_ && !writing_) || failure_; });
    rethrow_failure();
    waiting_ = std::move(result);
    changed_.notify_all();
}

void JournalQueue::flush() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return (!waiting_ && !writing_) || failure_; });
    rethrow_failure();
}

void JournalQueue::discard() {
    const std::lock_guard lock(mutex_);
    waiting_.reset();
    changed_.notify_all();
}

void JournalQueue::rethrow_failure() {
    if (failure_) std::rethrow_exception(failure_);
}

void JournalQueue::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return waiting_ || quit_; });
        if (!waiting_ || failure_) return;
        const UnitResult result = *std::exchange(waiting_, std::nullopt);
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
        failure_ = failure;
        changed_.notify_all();
    }
}

}  // namespace geom
