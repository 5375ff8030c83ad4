#include "derivations/depth.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

using namespace geom;

namespace {

using Values = std::vector<double>;

std::string trend(const Values& values) { return trend_of(thirds_of(values)); }

// numpy 2.4: np.mean, np.median, np.std, np.var of [3.5, -1.25, 8, 0.5, 2]
TEST(Depth, a_distribution_has_numpys_numbers) {
    const Distribution d = distribution_of(Values{3.5, -1.25, 8.0, 0.5, 2.0});
    EXPECT_EQ(d.count, 5);
    EXPECT_DOUBLE_EQ(d.mean, 2.55);
    EXPECT_DOUBLE_EQ(d.median, 2.0);
    EXPECT_DOUBLE_EQ(d.std, 3.1480152477394387);
    EXPECT_DOUBLE_EQ(d.variance, 9.91);
    EXPECT_DOUBLE_EQ(d.cv, 1.234515783427231);
    EXPECT_EQ(d.min, -1.25);
    EXPECT_EQ(d.max, 8.0);
    EXPECT_EQ(d.range, 9.25);
}

TEST(Depth, a_distribution_of_one_value_does_not_spread_and_one_of_none_is_nothing) {
    const Distribution one = distribution_of(Values{-4.0});
    EXPECT_EQ(one.mean, -4.0);
    EXPECT_EQ(one.std, 0.0);
    EXPECT_EQ(one.cv, 0.0);
    const Distribution none = distribution_of({});
    EXPECT_EQ(none.count, 0);
    for (const double value :
         {none.mean, none.median, none.std, none.variance, none.cv, none.min, none.max, none.range})
        EXPECT_TRUE(std::isnan(value));
}

TEST(Depth, thirds_are_as_long_as_a_third_rounded_down_and_the_last_takes_the_rest) {
    const auto thirds = thirds_of(Values{1, 3, 10, 20, 5, 6, 7, 8});
    EXPECT_EQ(thirds[0].count, 2);
    EXPECT_EQ(thirds[1].count, 2);
    EXPECT_EQ(thirds[2].count, 4);
    EXPECT_EQ(thirds[0].mean, 2.0);
    EXPECT_EQ(thirds[1].mean, 15.0);
    EXPECT_EQ(thirds[2].mean, 6.5);
    EXPECT_EQ(thirds[2].range, 3.0);
}

TEST(Depth, fewer_than_three_layers_have_no_thirds_no_trend_and_no_steps) {
    for (const Values& values : {Values{}, Values{1.0}, Values{1.0, 2.0}}) {
        for (const Distribution& third : thirds_of(values)) EXPECT_TRUE(third.count == 0 && std::isnan(third.mean));
        EXPECT_EQ(trend(values), "");
        EXPECT_TRUE(std::isnan(largest_drop(values).change) && std::isnan(largest_jump(values).change));
        EXPECT_EQ(largest_jump(values).from, -1);
    }
}

TEST(Depth, trends_are_named_after_the_means_of_the_thirds) {
    EXPECT_EQ(trend({3, 2, 1}), "MONOTONE DOWN");
    EXPECT_EQ(trend({1, 2, 3}), "MONOTONE UP");
    EXPECT_EQ(trend({3, 1, 2}), "U-SHAPE");
    EXPECT_EQ(trend({1, 3, 2}), "OTHER") << "a hill";
    EXPECT_EQ(trend({1, 1, 2}), "OTHER") << "flat at first";
    EXPECT_EQ(trend({2, 2, 2}), "OTHER");
    EXPECT_EQ(trend({9, 1, 4, 4, 3, 3, 0}), "MONOTONE DOWN") << "5, 4, 2: what single layers do does not matter";
}

TEST(Depth, the_largest_steps_are_between_neighbours_and_the_first_of_equals) {
    const Values values{5, 7, 4, 4, 1, 9, 17};
    EXPECT_EQ(largest_drop(values).change, -3.0);
    EXPECT_EQ(largest_drop(values).from, 1) << "not 3, which is as deep";
    EXPECT_EQ(largest_jump(values).change, 8.0);
    EXPECT_EQ(largest_jump(values).from, 4);
}

TEST(Depth, what_only_rises_has_no_drop) {
    EXPECT_EQ(largest_drop(Values{1, 1, 2, 3}).from, -1);
    EXPECT_EQ(largest_jump(Values{1, 1, 2, 3}).from, 1);
    EXPECT_EQ(largest_jump(Values{3, 1, 1}).from, -1);
}

}  // namespace
