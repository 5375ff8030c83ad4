#include "output/assemble.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/error.hpp"
#include "core/range.hpp"

namespace {

using geom::Communicator;
using geom::Schema;
using geom::Slab;
using geom::ValueType;
using Shape = std::vector<std::int64_t>;

struct Box {
    Shape start, count;
};

// One variable of each shape; dimensions d0, d1, ... of their own.
Schema schema_of(const std::vector<Shape>& shapes) {
    Schema schema;
    const ValueType types[] = {ValueType::f64, ValueType::f32, ValueType::i32};
    for (std::size_t v = 0; v < shapes.size(); ++v) {
        std::vector<std::string> dims;
        for (std::size_t d = 0; d < shapes[v].size(); ++d) {
            dims.push_back(fmt::format("v{}d{}", v, d));
            schema.scales.push_back({"", dims.back(), shapes[v][d], {}, "", {}});
        }
        schema.variables.push_back({"group", fmt::format("v{}", v), dims, types[v % 3], "", "1", ""});
    }
    return schema;
}

// What an element is: its number in the whole array, and the variable's.
double value_of(std::int64_t variable, const Shape& shape, const Shape& index) {
    std::int64_t number = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) number = number * shape[d] + index[d];
    return static_cast<double>(1000 * variable + number);
}

// f(index) for every element of a box, row-major.
template <class F>
void for_each_element(const Box& box, const F& f) {
    std::int64_t total = 1;
    for (const std::int64_t n : box.count) total *= n;
    for (std::int64_t i = 0; i < total; ++i) {
        Shape index(box.count.size());
        std::int64_t left = i;
        for (std::size_t d = box.count.size(); d-- > 0; left /= box.count[d])
            index[d] = box.start[d] + left % box.count[d];
        f(index);
    }
}

Slab slab_of(const Schema& schema, std::int64_t variable, const Box& box) {
    const auto& declared = schema.variables[static_cast<std::size_t>(variable)];
    const Shape shape = schema.shape_of(declared);
    Slab slab{variable, box.start, box.count, {}};
    const auto push = [&](auto value) {
        const auto* bytes = reinterpret_cast<const std::byte*>(&value);
        slab.data.insert(slab.data.end(), bytes, bytes + sizeof value);
    };
    for_each_element(box, [&](const Shape& index) {
        const double value = value_of(variable, shape, index);
        switch (declared.type) {
            case ValueType::f64:
                push(value);
                break;
            case ValueType::f32:
                push(static_cast<float>(value));
                break;
            case ValueType::i32:
                push(static_cast<std::int32_t>(value));
                break;
        }
    });
    return slab;
}

// Boxes that cover a shape once: cut at random until they are small.
std::vector<Box> cut(const Box& box, std::mt19937& random) {
    std::int64_t elements = 1;
    for (const std::int64_t n : box.count) elements *= n;
    if (elements <= 1 || random() % 5 == 0) return {box};
    std::size_t axis = random() % box.count.size();
    while (box.count[axis] == 1) axis = (axis + 1) % box.count.size();
    Box low = box, high = box;
    low.count[axis] = 1 + static_cast<std::int64_t>(random() % static_cast<unsigned>(box.count[axis] - 1));
    high.start[axis] += low.count[axis];
    high.count[axis] -= low.count[axis];
    std::vector<Box> boxes = cut(low, random);
    for (Box& part : cut(high, random)) boxes.push_back(std::move(part));
    return boxes;
}

Box whole(const Shape& shape) { return {Shape(shape.size(), 0), shape}; }

// This rank's part of an array: its rows, and every element in its place.
void expect_my_rows(const Schema& schema, const Slab& slab, const Communicator& world) {
    const auto& variable = schema.variables[static_cast<std::size_t>(slab.variable)];
    const Shape shape = schema.shape_of(variable);
    Box mine = whole(shape);
    if (!shape.empty()) {
        const geom::Range rows = geom::share(shape[0], world.size(), world.rank());
        mine.start[0] = rows.begin;
        mine.count[0] = rows.size();
    }
    EXPECT_EQ(slab.start, mine.start);
    EXPECT_EQ(slab.count, mine.count);
    EXPECT_EQ(slab.data, slab_of(schema, slab.variable, mine).data) << variable.path();
}

TEST(Assemble, random_boxes_of_zero_to_four_dimensions_make_the_whole_arrays) {
    const Communicator world = Communicator::world();
    std::mt19937 random(7);  // the same boxes on every rank
    for (int repetition = 0; repetition < 30; ++repetition) {
        std::vector<Shape> shapes = {{}};
        for (std::size_t dims = 1; dims <= 4; ++dims) {
            shapes.emplace_back();
            for (std::size_t d = 0; d < dims; ++d) shapes.back().push_back(1 + static_cast<std::int64_t>(random() % 6));
        }
        const Schema schema = schema_of(shapes);
        std::vector<Slab> mine;
        for (std::size_t v = 0; v < shapes.size(); ++v) {
            for (const Box& box : cut(whole(shapes[v]), random)) {
                if (static_cast<int>(random() % static_cast<unsigned>(world.size())) == world.rank()) {
                    mine.push_back(slab_of(schema, static_cast<std::int64_t>(v), box));
                }
            }
        }
        const std::vector<Slab> slabs = geom::assemble(schema, mine, world);
        std::size_t expected = world.rank() == 0 ? 1 : 0;  // the scalar
        for (std::size_t v = 1; v < shapes.size(); ++v) {
            expected += geom::share(shapes[v][0], world.size(), world.rank()).empty() ? 0 : 1;
        }
        EXPECT_EQ(slabs.size(), expected);
        for (const Slab& slab : slabs) expect_my_rows(schema, slab, world);
    }
}

TEST(Assemble, gram_by_heads_becomes_gram_by_layers) {
    const Communicator world = Communicator::world();
    const Schema schema = schema_of({{5, 5, 7}});
    std::vector<Slab> mine;
    for (std::int64_t head = 0; head < 7; ++head) {
        if (head % world.size() == world.rank()) mine.push_back(slab_of(schema, 0, {{0, 0, head}, {5, 5, 1}}));
    }
    const auto slabs = geom::assemble(schema, mine, world);
    ASSERT_EQ(slabs.size(), 1U);
    expect_my_rows(schema, slabs[0], world);
}

TEST(Assemble, of_nothing_is_nothing) {
    const Communicator world = Communicator::world();
    EXPECT_TRUE(geom::assemble(schema_of({{4, 2}}), {}, world).empty());
}

// Whether any rank refuses the slabs that rank 0 alone has, with Error(internal) naming the variable.
bool refused(const Schema& schema, const std::vector<Slab>& slabs, const Communicator& world) {
    std::int64_t mine = 0;
    try {
        geom::assemble(schema, world.rank() == 0 ? slabs : std::vector<Slab>{}, world);
    } catch (const geom::Error& error) {
        EXPECT_EQ(error.code(), geom::ExitCode::internal);
        EXPECT_NE(std::strstr(error.what(), "group/v0"), nullptr) << error.what();
        mine = 1;
    }
    return world.all_reduce_max(mine) == 1;
}

TEST(Assemble, refuses_a_variable_of_which_an_element_is_missing) {
    const Communicator world = Communicator::world();
    const Schema schema = schema_of({{4, 3}});
    std::vector<Slab> slabs;
    for (std::int64_t i = 0; i < 12; ++i) slabs.push_back(slab_of(schema, 0, {{i / 3, i % 3}, {1, 1}}));
    EXPECT_FALSE(refused(schema, slabs, world));
    for (std::size_t missing = 0; missing < 12; ++missing) {
        auto fewer = slabs;
        fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(missing));
        EXPECT_TRUE(refused(schema, fewer, world)) << missing;
    }
}

TEST(Assemble, refuses_a_variable_of_which_all_rows_of_a_rank_are_missing) {
    const Communicator world = Communicator::world();
    const Schema schema = schema_of({{8, 3}});
    for (int r = 0; r < world.size() && world.size() > 1; ++r) {
        const geom::Range rows = geom::share(8, world.size(), r);
        std::vector<Slab> others;
        if (rows.begin > 0) others.push_back(slab_of(schema, 0, {{0, 0}, {rows.begin, 3}}));
        if (rows.end < 8) others.push_back(slab_of(schema, 0, {{rows.end, 0}, {8 - rows.end, 3}}));
        EXPECT_TRUE(refused(schema, others, world)) << "rows of rank " << r;
    }
}

TEST(Assemble, refuses_an_element_that_was_computed_twice) {
    const Communicator world = Communicator::world();
    const Schema schema = schema_of({{4, 3}});
    EXPECT_TRUE(refused(schema, {slab_of(schema, 0, whole({4, 3})), slab_of(schema, 0, {{2, 1}, {1, 1}})}, world));
}

TEST(Assemble, refuses_an_element_computed_twice_where_another_is_missing) {
    const Communicator world = Communicator::world();
    const Schema schema = schema_of({{1, 4}});
    EXPECT_TRUE(refused(schema, {slab_of(schema, 0, {{0, 0}, {1, 2}}), slab_of(schema, 0, {{0, 1}, {1, 2}})}, world));
}

TEST(Assemble, refuses_a_scalar_that_was_computed_twice) {
    const Communicator world = Communicator::world();
    const Schema schema = schema_of({{}});
    EXPECT_FALSE(refused(schema, {slab_of(schema, 0, {})}, world));
    EXPECT_TRUE(refused(schema, {slab_of(schema, 0, {}), slab_of(schema, 0, {})}, world));
}

}  // namespace
