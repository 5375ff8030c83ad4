#include "mpi/communicator.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "kernels/workers.hpp"
#include "mpi/wait.hpp"

namespace {

using geom::Communicator;
using Seconds = std::chrono::duration<double>;

// What rank `from` sends to rank `to`: lengths differ by pair, every third message is empty.
std::string message(int from, int to) {
    const auto length = (from + 2 * to) % 3 == 0 ? 0 : 1 + 37 * from + 101 * to;
    std::string text;
    for (int i = 0; i < length; ++i) text += static_cast<char>((from * 31 + to * 17 + i) % 256);
    return text;
}

TEST(Communicator, all_to_all_brings_ragged_and_empty_messages_to_their_ranks) {
    const Communicator world = Communicator::world();
    std::vector<std::string> sends, expected;
    for (int r = 0; r < world.size(); ++r) {
        sends.push_back(message(world.rank(), r));
        expected.push_back(message(r, world.rank()));
    }
    for (int repetition = 0; repetition < 20; ++repetition) EXPECT_EQ(world.all_to_all(sends), expected);
}

TEST(Communicator, all_to_all_of_nothing_is_nothing) {
    const Communicator world = Communicator::world();
    const std::vector<std::string> nothing(static_cast<std::size_t>(world.size()));
    EXPECT_EQ(world.all_to_all(nothing), nothing);
}

TEST(Communicator, all_to_all_brings_megabytes) {
    const Communicator world = Communicator::world();
    std::vector<std::string> sends;
    for (int r = 0; r < world.size(); ++r)
        sends.emplace_back(3'000'001 + 10 * r, static_cast<char>('a' + world.rank()));
    const auto received = world.all_to_all(sends);
    for (int r = 0; r < world.size(); ++r) {
        EXPECT_EQ(received[static_cast<std::size_t>(r)],
                  std::string(3'000'001 + 10 * world.rank(), static_cast<char>('a' + r)));
    }
}

TEST(Communicator, all_to_all_needs_a_message_for_every_rank) {
    const Communicator world = Communicator::world();
    EXPECT_THROW(world.all_to_all(std::vector<std::string>(static_cast<std::size_t>(world.size() + 1))), geom::Error);
}

TEST(Communicator, all_gather_is_in_rank_order) {
    const Communicator world = Communicator::world();
    const auto all = world.all_gather(std::string(static_cast<std::size_t>(world.rank()), 'x') + "\0y" +
                                      std::to_string(world.rank()));
    ASSERT_EQ(static_cast<int>(all.size()), world.size());
    for (int r = 0; r < world.size(); ++r) {
        EXPECT_EQ(all[static_cast<std::size_t>(r)],
                  std::string(static_cast<std::size_t>(r), 'x') + "\0y" + std::to_string(r));
    }
}

TEST(Communicator, broadcast_brings_the_roots_bytes_from_any_root) {
    const Communicator world = Communicator::world();
    for (int root = 0; root < world.size(); ++root) {
        EXPECT_EQ(world.broadcast("from " + std::to_string(world.rank()), root), "from " + std::to_string(root));
        EXPECT_EQ(world.broadcast(world.rank() == root ? std::string() : "ignored", root), "");
    }
}

TEST(Communicator, reductions_of_integers_are_exact) {
    const Communicator world = Communicator::world();
    const std::int64_t n = world.size(), big = std::int64_t{1} << 60;
    EXPECT_EQ(world.all_reduce_sum(std::int64_t{world.rank() + 1}), n * (n + 1) / 2);
    EXPECT_EQ(world.all_reduce_min(big - world.rank()), big - (n - 1));
    EXPECT_EQ(world.all_reduce_max(big - world.rank()), big);
}

TEST(Communicator, a_sum_of_doubles_is_taken_in_rank_order) {
    const Communicator world = Communicator::world();
    const auto value = [](int rank) {
        return std::ldexp(1.0 / (3.0 + rank), rank % 2 == 0 ? 50 : 0) * (rank == 2 ? -1 : 1);
    };
    double expected = 0.0;
    for (int r = 0; r < world.size(); ++r) expected += value(r);
    EXPECT_EQ(world.all_reduce_sum(value(world.rank())), expected);
    EXPECT_EQ(world.all_reduce_min(static_cast<double>(-world.rank())), -(world.size() - 1.0));
    EXPECT_EQ(world.all_reduce_max(static_cast<double>(-world.rank())), 0.0);
}

TEST(Communicator, ranks_of_one_machine_share_its_node) {
    const Communicator world = Communicator::world();
    EXPECT_EQ(world.node_size(), world.size());
    EXPECT_EQ(world.node_rank(), world.rank());
}

// The barrier has no memory of its own, so that one given up on may still be completed by the late rank.
TEST(Communicator, a_rank_that_does_not_come_makes_the_others_give_up_in_time) {
    Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "nobody to wait for";
    constexpr Seconds late{5}, deadline{0.4};  // two seconds are for asking who is there
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    if (world.rank() == world.size() - 1) {
        std::this_thread::sleep_for(late);
        world.barrier();
    } else {
        world.set_deadline(deadline);
        try {
            world.barrier();
            ADD_FAILURE() << "the barrier ended without all ranks";
        } catch (const geom::Error& error) {
            EXPECT_EQ(error.code(), geom::ExitCode::internal);
            const std::string message = error.what();
            EXPECT_NE(message.find("--deadline"), std::string::npos) << message;
            EXPECT_NE(message.find("rank " + std::to_string(world.size() - 1) + " on "), std::string::npos) << message;
            for (int r = 0; r + 1 < world.size(); ++r) {
                EXPECT_EQ(message.find("rank " + std::to_string(r) + " on "), std::string::npos) << message;
            }
        }
        const Seconds waited = std::chrono::steady_clock::now() - start;
        EXPECT_GE(waited, deadline);
        EXPECT_LT(waited, late);
        world.set_deadline(Seconds(60));
    }
    world.barrier();  // for which the late rank arrives
    EXPECT_EQ(world.all_reduce_sum(std::int64_t{1}), world.size()) << "and everything works as before";
    world.set_deadline(Seconds(600));
}

// The last rank calls a library once, for three deadlines.
TEST(Communicator, a_rank_inside_one_long_call_is_no_dead_peer) {
    Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "nobody to wait for";
    constexpr Seconds deadline{1}, call{3};
    world.set_deadline(deadline);
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    if (world.rank() == world.size() - 1) {
        geom::Workers workers(1);
        std::int64_t before = workers.progress();
        workers.set_idle([&] {
            const std::int64_t now = workers.progress();
            world.at_work(now != std::exchange(before, now));
        });
        workers.for_each(1, [&](std::int64_t, int) {
            while (std::chrono::steady_clock::now() - start < call) continue;
        });
    }
    EXPECT_NO_THROW(world.barrier());
    EXPECT_GE(Seconds(std::chrono::steady_clock::now() - start), call);
    world.set_deadline(Seconds(600));
}

TEST(Communicator, waiting_leaves_time_for_the_idle_callback) {
    Communicator world = Communicator::world();
    if (world.size() == 1) GTEST_SKIP() << "nobody to wait for";
    int calls = 0;
    world.set_idle([&] { ++calls; });
    if (world.rank() == 0) std::this_thread::sleep_for(Seconds(0.5));
    world.barrier();
    world.set_idle({});
    if (world.rank() != 0) {
        EXPECT_GE(calls, 2);
    }
}

TEST(Communicator, asks_what_it_waits_for_until_it_says_yes_or_throws) {
    const Communicator world = Communicator::world();
    int asked = 0;
    geom::wait_until(
        world, [&] { return ++asked == 5; }, "five questions");
    EXPECT_EQ(asked, 5);
    const auto fail = [&]() -> bool { throw geom::Error(geom::ExitCode::internal, "a transport's words"); };
    EXPECT_THROW(geom::wait_until(world, fail, "nothing"), geom::Error);
}

TEST(Communicator, an_emergency_ends_where_it_was_told_to_end) {
    Communicator world = Communicator::world();
    const geom::Error lost(geom::ExitCode::internal, "a peer is lost");
    world.emergency_exit(lost);  // nobody is told
    std::string told;
    world.set_emergency_exit([&](const geom::Error& error) { told = error.what(); });
    world.emergency_exit(lost);
    EXPECT_EQ(told, "a peer is lost");
}

}  // namespace
