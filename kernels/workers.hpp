// The threads of a rank. They take whole units of work, or fixed tiles of one; no library splits work below them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace geom {

class Workers {
public:
    /// Starts `threads` >= 1 threads; throws Error(usage) when the system gives fewer. Libraries called on them
    /// (OpenBLAS, oneDNN) are held to one thread each.
    explicit Workers(int threads);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    int size() const noexcept { return static_cast<int>(threads_.size()); }

    /// Calls f(i, worker) once for every i in [0, n), each on one thread, in rising order of i as threads become free;
    /// worker in [0, size()) tells which scratch memory is the thread's own. Returns when all are done. The first
    /// exception stops the rest and is rethrown here. While it waits, the caller's thread runs idle() every 100 ms.
    void for_each(std::int64_t n, const std::function<void(std::int64_t i, int worker)>& f);

    /// for_each in two parts: start() returns at once, and finish() waits. Between the two nothing else is started.
    void start(std::int64_t n, std::function<void(std::int64_t i, int worker)> f);
    void finish();
    /// Instead of finish(): what has not begun is left out, and what f threw is forgotten.
    void abandon() noexcept;

    /// Calls of f that have ended, and milliseconds that these threads have computed, both since the start: grows while
    /// there is progress, also inside one call of a library that takes minutes. A thread that waits for a lock or a
    /// file, or whose process is stopped, makes none.
    std::int64_t progress() noexcept;

    /// Progress, signals, heartbeat; called on the thread that waits. An exception from it stops the work.
    void set_idle(std::function<void()> idle) { idle_ = std::move(idle); }
    /// Runs it once, for whoever waits for something else.
    void idle() const {
        if (idle_) idle_();
    }

private:
    void run(int worker);
    void stop() noexcept;

    std::vector<std::thread> threads_;
    std::function<void()> idle_;
    std::atomic<std::int64_t> done_{0};
    std::mutex mutex_;
    std::condition_variable start_, finished_;
    std::function<void(std::int64_t, int)> task_;
    std::int64_t next_ = 0, count_ = 0, running_ = 0;
    std::uint64_t generation_ = 0;
    std::exception_ptr failure_;
    bool quit_ = false;
};

}  // namespace geom
