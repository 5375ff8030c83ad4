#include "output/write_slabs.hpp"

#include <gtest/gtest.h>

#include <algorithm>

using namespace geom;

namespace {

using Shape = std::vector<std::int64_t>;

// The elements of a box one by one, in its own order, as places in the variable.
std::vector<std::int64_t> one_by_one(const Shape& shape, const Shape& start, const Shape& count) {
    std::vector<std::int64_t> places = {0};
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        std::vector<std::int64_t> next;
        for (const std::int64_t place : places) {
            for (std::int64_t i = 0; i < count[axis]; ++i) next.push_back(place * shape[axis] + start[axis] + i);
        }
        places = std::move(next);
    }
    return places;
}

TEST(RunsOf, name_every_element_of_any_box_of_three_axes_where_it_lies) {
    const Shape shape = {3, 2, 4};
    for (std::int64_t box = 0; box < 3 * 3 * 2 * 2 * 4 * 4; ++box) {
        const Shape start = {box % 3, box / 9 % 2, box / 36 % 4}, wanted = {box / 3 % 3, box / 18 % 2, box / 144};
        Shape count;
        for (std::size_t axis = 0; axis < 3; ++axis)
            count.push_back(std::min(wanted[axis] + 1, shape[axis] - start[axis]));
        std::vector<std::int64_t> places(one_by_one(shape, start, count).size(), -1);
        for (const geom::Run& run : runs_of(shape, start, count)) {
            for (std::int64_t i = 0; i < run.count; ++i) places.at(static_cast<std::size_t>(run.from + i)) = run.at + i;
        }
        ASSERT_EQ(places, one_by_one(shape, start, count)) << box;
    }
}

TEST(RunsOf, are_as_few_as_can_be) {
    EXPECT_EQ(runs_of({}, {}, {}).size(), 1U) << "a scalar";
    EXPECT_EQ(runs_of({5, 4, 3}, {2, 0, 0}, {2, 4, 3}).size(), 1U) << "rows";
    EXPECT_EQ(runs_of({5, 4, 3}, {2, 1, 0}, {1, 2, 3}).size(), 1U) << "part of a row";
    EXPECT_EQ(runs_of({5, 4, 3}, {2, 1, 0}, {2, 2, 3}).size(), 2U);
    EXPECT_EQ(runs_of({5, 4, 3}, {0, 0, 1}, {5, 4, 1}).size(), 20U);
    EXPECT_TRUE(runs_of({5, 0, 3}, {0, 0, 0}, {5, 0, 3}).empty());
    EXPECT_TRUE(runs_of({0, 4}, {0, 0}, {0, 4}).empty());
}

}  // namespace
