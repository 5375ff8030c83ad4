#include "kernels/workers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "core/error.hpp"

using geom::Workers;
using Milliseconds = std::chrono::milliseconds;

namespace {

class WorkersOf : public ::testing::TestWithParam<int> {};

TEST_P(WorkersOf, do_every_task_once) {
    Workers workers(GetParam());
    EXPECT_EQ(workers.size(), GetParam());
    for (const std::int64_t n : {1, 2, 3, 100, 5000}) {
        std::vector<int> done(static_cast<std::size_t>(n));  // elements are apart: no two threads touch one
        workers.for_each(n, [&](std::int64_t i, int) { ++done[static_cast<std::size_t>(i)]; });
        EXPECT_EQ(done, std::vector<int>(static_cast<std::size_t>(n), 1));
    }
}

TEST_P(WorkersOf, tell_threads_apart) {
    Workers workers(GetParam());
    std::vector<std::int64_t> scratch(static_cast<std::size_t>(GetParam()));  // of each thread, without a lock
    workers.for_each(10'000, [&](std::int64_t i, int worker) { scratch.at(static_cast<std::size_t>(worker)) += i; });
    EXPECT_EQ(std::accumulate(scratch.begin(), scratch.end(), std::int64_t{0}), std::int64_t{10'000} * 9'999 / 2);
}

TEST_P(WorkersOf, take_tasks_in_rising_order) {
    Workers workers(GetParam());
    std::vector<std::vector<std::int64_t>> taken(static_cast<std::size_t>(GetParam()));
    workers.for_each(1000,
                     [&](std::int64_t i, int worker) { taken.at(static_cast<std::size_t>(worker)).push_back(i); });
    for (const auto& of_worker : taken) EXPECT_TRUE(std::is_sorted(of_worker.begin(), of_worker.end()));
}

TEST_P(WorkersOf, are_used_again_and_again) {
    Workers workers(GetParam());
    std::int64_t sum = 0;
    for (std::int64_t generation = 0; generation < 2000; ++generation) {
        std::atomic<std::int64_t> part{0};
        workers.for_each(generation % 5, [&](std::int64_t i, int) { part += generation + i; });
        sum += part;
    }
    std::int64_t expected = 0;
    for (std::int64_t generation = 0; generation < 2000; ++generation) {
        for (std::int64_t i = 0; i < generation % 5; ++i) expected += generation + i;
    }
    EXPECT_EQ(sum, expected);
}

TEST_P(WorkersOf, rethrow_the_first_exception_and_stop_the_rest) {
    Workers workers(GetParam());
    for (int repetition = 0; repetition < 50; ++repetition) {
        std::atomic<std::int64_t> started{0};
        try {
            workers.for_each(1'000'000, [&](std::int64_t i, int) {
                ++started;
                if (i == 20) throw std::runtime_error("task 20");
            });
            ADD_FAILURE() << "nothing was thrown";
        } catch (const std::runtime_error& error) {
            EXPECT_STREQ(error.what(), "task 20");
        }
        EXPECT_LT(started, 1'000'000);
        std::atomic<int> after{0};
        workers.for_each(10, [&](std::int64_t, int) { ++after; });
        EXPECT_EQ(after, 10) << "and they work as before";
    }
}

TEST_P(WorkersOf, rethrow_one_of_many_exceptions) {
    Workers workers(GetParam());
    EXPECT_THROW(workers.for_each(100, [](std::int64_t i, int) { throw static_cast<int>(i); }), int);
}

TEST_P(WorkersOf, do_nothing_for_no_tasks) {
    Workers workers(GetParam());
    workers.for_each(0, [](std::int64_t, int) { ADD_FAILURE(); });
    workers.for_each(-3, [](std::int64_t, int) { ADD_FAILURE(); });
}

TEST_P(WorkersOf, leave_the_caller_idle_while_they_work) {
    Workers workers(GetParam());
    const auto caller = std::this_thread::get_id();
    int idled = 0;
    workers.set_idle([&] {
        EXPECT_EQ(std::this_thread::get_id(), caller);
        ++idled;
    });
    workers.for_each(1, [](std::int64_t, int) { std::this_thread::sleep_for(Milliseconds(450)); });
    EXPECT_GE(idled, 2);
    EXPECT_LE(idled, 5);
}

TEST_P(WorkersOf, stop_when_the_idle_callback_throws_but_not_in_the_middle_of_a_task) {
    Workers workers(GetParam());
    workers.set_idle([] { throw std::runtime_error("signal"); });
    std::atomic<std::int64_t> started{0}, ended{0};
    EXPECT_THROW(workers.for_each(1000,
                                  [&](std::int64_t, int) {
                                      ++started;
                                      std::this_thread::sleep_for(Milliseconds(30));
                                      ++ended;
                                  }),
                 std::runtime_error);
    EXPECT_EQ(started, ended);
    EXPECT_LT(started, 1000);
    workers.set_idle({});
    std::atomic<int> after{0};
    workers.for_each(10, [&](std::int64_t, int) { ++after; });
    EXPECT_EQ(after, 10);
}

TEST_P(WorkersOf, that_were_started_work_while_the_caller_does_something_else) {
    Workers workers(GetParam());
    std::atomic<bool> caller_went_on{false};
    std::atomic<int> done{0};
    workers.start(5, [&](std::int64_t, int) {
        while (!caller_went_on) std::this_thread::sleep_for(Milliseconds(1));
        ++done;
    });
    EXPECT_THROW(workers.start(1, [](std::int64_t, int) {}), geom::Error) << "one thing at a time";
    caller_went_on = true;
    workers.finish();
    EXPECT_EQ(done, 5);
    workers.finish();  // nothing is left to wait for
    workers.start(3, [](std::int64_t, int) { throw std::runtime_error("seen at the end"); });
    EXPECT_THROW(workers.finish(), std::runtime_error);
}

TEST_P(WorkersOf, that_are_abandoned_leave_out_what_has_not_begun) {
    Workers workers(GetParam());
    std::atomic<int> begun{0}, ended{0};
    workers.start(1000, [&](std::int64_t, int) {
        ++begun;
        std::this_thread::sleep_for(Milliseconds(20));
        ++ended;
        throw std::runtime_error("forgotten");
    });
    while (begun == 0) std::this_thread::sleep_for(Milliseconds(1));
    workers.abandon();
    EXPECT_EQ(begun, ended);
    EXPECT_LT(begun, 1000);
    std::atomic<int> after{0};
    workers.for_each(10, [&](std::int64_t, int) { ++after; });
    EXPECT_EQ(after, 10);
}

TEST(Workers, make_progress_inside_one_call_that_computes_and_none_while_it_waits) {
    Workers workers(2);
    std::atomic<bool> compute{false}, end{false};
    workers.start(1, [&](std::int64_t, int) {
        while (!compute) std::this_thread::sleep_for(Milliseconds(50));
        while (!end) continue;
    });
    std::this_thread::sleep_for(Milliseconds(20));
    const std::int64_t waiting = workers.progress();
    std::this_thread::sleep_for(Milliseconds(300));
    EXPECT_LE(workers.progress(), waiting + 1) << "waking up takes next to nothing";
    compute = true;
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (workers.progress() < waiting + 100 && std::chrono::steady_clock::now() < give_up)
        std::this_thread::sleep_for(Milliseconds(10));
    EXPECT_GE(workers.progress(), waiting + 100);
    end = true;
    workers.finish();
}

INSTANTIATE_TEST_SUITE_P(Workers, WorkersOf, ::testing::Values(1, 2, 3, 8),
                         [](const auto& test) { return std::to_string(test.param) + "_threads"; });

TEST(Workers, that_never_work_end_at_once) {
    for (int i = 0; i < 100; ++i) Workers workers(3);
}

}  // namespace
