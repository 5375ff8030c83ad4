#include "core/mistakes.hpp"

#include <gtest/gtest.h>

using geom::about_unexpected;
using geom::nearest_name;

namespace {

const std::vector<std::string> options{"--model", "--measures", "--memory-budget", "--layers", "-m"};

TEST(NearestName, counts_letters_put_in_left_out_changed_and_swapped) {
    for (const char* typed : {"--modle", "--mdel", "--modell", "--nodel", "--model"})
        EXPECT_EQ(nearest_name(typed, options), "--model") << typed;
    EXPECT_EQ(nearest_name("--memory-buget", options), "--memory-budget");
}

TEST(NearestName, is_none_when_nothing_is_near) {
    for (const char* typed : {"--frobnicate", "-x", "", "--"}) EXPECT_EQ(nearest_name(typed, options), "") << typed;
    EXPECT_EQ(nearest_name(std::string(100'000, 'x'), options), "") << "and takes no time over it";
}

TEST(AboutUnexpected, says_what_was_probably_meant) {
    const std::vector<std::string> commands{"info", "analyze"};
    EXPECT_EQ(about_unexpected({"x", "--modle=y"}, options, commands), "there is no option --modle: is --model meant?");
    EXPECT_EQ(about_unexpected({"--colour"}, options, commands), "there is no option --colour");
    EXPECT_EQ(about_unexpected({"analyse"}, options, commands), "there is no command analyse: is analyze meant?");
    EXPECT_EQ(about_unexpected({"Org/Name"}, options, commands),
              "Org/Name is not expected here: a model is given as --model Org/Name");
    EXPECT_LT(about_unexpected({std::string(100'000, 'x')}, options, commands).size(), 1000U);
}

}  // namespace
