#include "core/progress.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/terminal.hpp"

using namespace geom;

namespace {

const ProgressState half{"heads", "weights", "B", 50.0 * (1 << 20), 100.0 * (1 << 20), 25.0};

TEST(ProgressLine, says_what_is_at_work_how_far_how_fast_and_how_long) {
    EXPECT_EQ(progress_line(half, 0), "heads      50% of the weights  2.0 MiB/s  0:25 left");
    const ProgressState products{"match", "pairs of heads", "FLOP", 1e12, 4e12, 10.0};
    EXPECT_EQ(progress_line(products, 0), "match      25% of the pairs of heads  100 GFLOP/s  0:30 left");
}

TEST(ProgressLine, says_no_rate_before_there_is_one) {
    EXPECT_EQ(progress_line({"load", "weights", "B", 0.0, 10.0, 3.0}, 0), "load        0% of the weights");
    EXPECT_EQ(progress_line({"load", "weights", "B", 0.0, 0.0, 0.0}, 0), "load        0% of the weights");
}

TEST(ProgressLine, is_shorter_than_any_terminal_is_wide) {
    for (int columns = 1; columns <= 200; ++columns) {
        const std::string line = progress_line(half, columns);
        EXPECT_LT(static_cast<int>(line.size()), columns);
        EXPECT_EQ(line.find("0:25 left") != std::string::npos, columns >= 26) << columns << ": " << line;
    }
}

TEST(ProgressLine, has_a_bar_where_there_is_room) {
    EXPECT_EQ(progress_line(half, 100),
              "[###############...............] heads      50% of the weights  2.0 MiB/s  0:25 left");
    EXPECT_EQ(progress_line(half, 40), "[#####......] heads      50%  0:25 left");
}

TEST(Terminal, is_none_where_it_knows_no_escapes) {
    const char* before = std::getenv("TERM");
    const std::string kept = before == nullptr ? "" : before;
    ::setenv("TERM", "dumb", 1);
    EXPECT_EQ(terminal_columns(), 0);
    EXPECT_EQ(progress_style("auto"), ProgressStyle::lines);
    EXPECT_EQ(progress_style("bar"), ProgressStyle::bar);
    ::unsetenv("TERM");
    EXPECT_EQ(terminal_columns(), 0);
    if (before != nullptr) ::setenv("TERM", kept.c_str(), 1);
}

}  // namespace
