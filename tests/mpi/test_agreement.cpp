#include "mpi/agreement.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace {

using geom::AgreedError;
using geom::Communicator;
using geom::Error;
using geom::ExitCode;

// The code and message that agree_on() leaves on this rank.
template <class F>
std::pair<ExitCode, std::string> agreed(const Communicator& world, F&& f) {
    try {
        geom::agree_on(world, f);
    } catch (const AgreedError& error) {
        return {error.code(), error.what()};
    }
    return {ExitCode::done, ""};
}

TEST(Agreement, without_a_failure_everyone_goes_on) {
    const Communicator world = Communicator::world();
    int done = 0;
    EXPECT_EQ(agreed(world, [&] { ++done; }).first, ExitCode::done);
    EXPECT_EQ(done, 1);
}

TEST(Agreement, a_failure_of_one_rank_becomes_everyones_and_is_named) {
    const Communicator world = Communicator::world();
    for (int failing = 0; failing < world.size(); ++failing) {
        const auto [code, message] = agreed(world, [&] {
            if (world.rank() == failing) throw Error(ExitCode::input, "shard 7 is missing");
        });
        EXPECT_EQ(code, ExitCode::input);
        EXPECT_TRUE(message.starts_with("shard 7 is missing")) << message;
        if (world.size() > 1) {
            EXPECT_NE(message.find(fmt::format("rank {} on ", failing)), std::string::npos) << message;
        }
        EXPECT_EQ(world.all_gather(message), std::vector<std::string>(static_cast<std::size_t>(world.size()), message));
    }
}

TEST(Agreement, a_failure_of_all_is_nobodys_in_particular) {
    const Communicator world = Communicator::world();
    const auto [code, message] = agreed(world, [] { throw Error(ExitCode::usage, "no such model"); });
    EXPECT_EQ(code, ExitCode::usage);
    EXPECT_EQ(message, "no such model");
}

TEST(Agreement, of_different_failures_the_lowest_ranks_wins) {
    const Communicator world = Communicator::world();
    if (world.size() < 3) GTEST_SKIP() << "needs three ranks";
    const auto [code, message] = agreed(world, [&] {
        if (world.rank() == 1) throw Error(ExitCode::numerics, "NaN");
        if (world.rank() == 2) throw Error(ExitCode::output, "disk full");
    });
    EXPECT_EQ(code, ExitCode::numerics);
    EXPECT_TRUE(message.starts_with("NaN")) << message;
}

TEST(Agreement, keeps_every_exit_code_and_any_text) {
    const Communicator world = Communicator::world();
    const std::string text = "one 2 three\nfour: 'ü' {} %d " + std::string(5000, 'x');
    for (const ExitCode code : {ExitCode::usage, ExitCode::input, ExitCode::numerics, ExitCode::output,
                                ExitCode::internal, ExitCode::stopped}) {
        const auto [agreed_code, message] = agreed(world, [&] { throw Error(code, text); });
        EXPECT_EQ(agreed_code, code);
        EXPECT_EQ(message, text);
    }
}

TEST(Agreement, reached_inside_an_agreement_passes_through) {
    const Communicator world = Communicator::world();
    const auto [code, message] = agreed(world, [&] {
        geom::agree_on(world, [&] {
            if (world.rank() == 0) throw Error(ExitCode::output, "inside");
        });
    });
    EXPECT_EQ(code, ExitCode::output);
    EXPECT_TRUE(message.starts_with("inside"));
}

TEST(Agreement, is_not_sought_for_what_is_no_error_of_the_program) {
    const Communicator world = Communicator::world();
    EXPECT_THROW(geom::agree_on(world, [] { throw std::logic_error("a bug"); }), std::logic_error);
}

}  // namespace
