#include "kernels/workers.hpp"

#include <cblas.h>
#include <fmt/format.h>
#include <omp.h>
#include <pthread.h>

#include <chrono>
#include <ctime>
#include <system_error>
#include <utility>

#include "core/error.hpp"

namespace geom {

namespace {

std::int64_t computed_milliseconds(std::thread::native_handle_type thread) noexcept {
    clockid_t clock{};
    timespec computed{};
    if (::pthread_getcpuclockid(thread, &clock) != 0) return 0;
    if (::clock_gettime(clock, &computed) != 0) return 0;
    return computed.tv_sec * 1000 + computed.tv_nsec / 1'000'000;
}

}  // namespace

Workers::Workers(int threads) {
    openblas_set_num_threads(1);
    try {
        for (int t = 0; t < threads; ++t) threads_.emplace_back([this, t] { run(t); });
    } catch (const std::system_error& error) {
        const auto started = threads_.size();
        stop();
        throw Error(ExitCode::usage,
                    fmt::format("only {} of {} threads could be started: {}; give fewer with --threads, or raise the "
                                "limit on processes (ulimit -u)",
                                started, threads, error.what()));
    }
}

Workers::~Workers() { stop(); }

void Workers::stop() noexcept {
    {
        const std::lock_guard lock(mutex_);
        quit_ = true;
        next_ = count_;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

std::int64_t Workers::progress() noexcept {
    std::int64_t progress = done_;
    for (std::thread& thread : threads_) progress += computed_milliseconds(thread.native_handle());
    return progress;
}

void Workers::for_each(std::int64_t n, const std::function<void(std::int64_t, int)>& f) {
    start(n, [&f](std::int64_t i, int worker) { f(i, worker); });
    finish();
}

void Workers::start(std::int64_t n, std::function<void(std::int64_t, int)> f) {
    if (n <= 0) return;
    {
        const std::lock_guard lock(mutex_);
        if (task_) throw Error(ExitCode::internal, "threads were given work before they had finished the last");
        task_ = std::move(f);
        next_ = 0;
        count_ = n;
        running_ = size();
        failure_ = nullptr;
        ++generation_;
    }
    start_.notify_all();
}

void Workers::finish() {
    std::unique_lock lock(mutex_);
    if (!task_) return;
    while (!finished_.wait_for(lock, std::chrono::milliseconds(100), [this] { return running_ == 0; })) {
        lock.unlock();
        std::exception_ptr stop;
        try {
            idle();
        } catch (...) {
            stop = std::current_exception();
        }
        lock.lock();
        if (stop && !failure_) {
            failure_ = stop;
            next_ = count_;
        }
    }
    task_ = nullptr;
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Workers::abandon() noexcept {
    std::unique_lock lock(mutex_);
    next_ = count_;
    finished_.wait(lock, [this] { return running_ == 0; });
    task_ = nullptr;
    failure_ = nullptr;
}

void Workers::run(int worker) {
    omp_set_num_threads(1);  // a setting of this thread: what OpenMP libraries called here may use
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
        start_.wait(lock, [&] { return quit_ || generation_ != seen; });
        if (quit_) return;
        seen = generation_;
        while (next_ < count_) {
            const std::int64_t i = next_++;
            lock.unlock();
            std::exception_ptr failure;
            try {
                task_(i, worker);
            } catch (...) {
                failure = std::current_exception();
            }
            ++done_;
            lock.lock();
            if (failure && !failure_) {
                failure_ = failure;
                next_ = count_;
            }
        }
        if (--running_ == 0) finished_.notify_all();
    }
}

}  // namespace geom
