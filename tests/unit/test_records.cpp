#include <gtest/gtest.h>

#include "core/error.hpp"
#include "output/records.hpp"

namespace {

using geom::check_slab;
using geom::Piece;
using geom::pieces_of;
using geom::Schema;
using geom::Slab;
using geom::ValueType;

using Shape = std::vector<std::int64_t>;

Schema two_levels() {
    Schema schema;
    schema.scales = {{"", "layer", 4, {}, "", {}},
                     {"spectra", "family", 2, {"q_proj", "k_proj"}, "", {}},
                     {"legacy/variation", "family", 3, {"q", "k", "v"}, "", {}}};
    schema.variables = {{"spectra", "eff_rank", {"family", "layer"}, ValueType::f64, "", "1", ""},
                        {"legacy/variation", "residual", {"family", "layer"}, ValueType::f32, "", "1", ""},
                        {"", "seed", {}, ValueType::i32, "", "1", ""}};
    return schema;
}

Slab slab_of(std::int64_t variable, Shape start, Shape count, std::int64_t element_bytes) {
    Slab slab{variable, std::move(start), std::move(count), {}};
    slab.data.resize(static_cast<std::size_t>(slab.elements() * element_bytes));
    return slab;
}

TEST(Records, find_a_variable_by_its_path) {
    const Schema schema = two_levels();
    EXPECT_EQ(schema.index_of("spectra/eff_rank"), 0);
    EXPECT_EQ(schema.index_of("legacy/variation/residual"), 1);
    EXPECT_EQ(schema.index_of("seed"), 2);
    for (const char* path :
         {"eff_rank", "spectra", "/seed", "spectra/eff_ran", "spectraeff_rank", "spectra/eff_rank/"}) {
        EXPECT_EQ(schema.find(path), -1) << path;
    }
    EXPECT_THROW(schema.index_of("variation/residual"), geom::Error);
}

TEST(Records, take_the_nearest_scale_of_a_name) {
    const Schema schema = two_levels();
    EXPECT_EQ(schema.shape_of(schema.variables[0]), (Shape{2, 4}));
    EXPECT_EQ(schema.shape_of(schema.variables[1]), (Shape{3, 4}));
    EXPECT_EQ(schema.shape_of(schema.variables[2]), Shape{});
    EXPECT_THROW(schema.scale_of(schema.variables[2], "family"), geom::Error);
}

TEST(Records, refuse_a_slab_that_does_not_fit_its_variable) {
    const Schema schema = two_levels();
    EXPECT_NO_THROW(check_slab(schema, slab_of(0, {1, 2}, {1, 2}, 8)));
    EXPECT_NO_THROW(check_slab(schema, slab_of(2, {}, {}, 4)));
    EXPECT_NO_THROW(check_slab(schema, slab_of(0, {2, 0}, {0, 4}, 8)));
    const std::int64_t huge = std::int64_t{1} << 62;
    for (const auto& [start, count] : std::vector<std::pair<Shape, Shape>>{
             {{1, 3}, {1, 2}}, {{-1, 0}, {1, 1}}, {{0}, {1}}, {{3, 0}, {0, 4}}, {{1, 1}, {-1, -1}}}) {
        EXPECT_THROW(check_slab(schema, slab_of(0, start, count, 8)), geom::Error);
    }
    EXPECT_THROW(check_slab(schema, Slab{0, {huge, 0}, {huge, 1}, {}}), geom::Error);
    EXPECT_THROW(check_slab(schema, slab_of(0, {0, 0}, {1, 1}, 4)), geom::Error);
    EXPECT_THROW(check_slab(schema, slab_of(3, {}, {}, 8)), geom::Error);
}

TEST(Records, cut_a_slab_into_pieces_that_tile_it_in_memory_order) {
    const Slab slab = slab_of(0, {10, 20, 30}, {3, 5, 7}, 4);
    for (std::int64_t limit = 1; limit <= 500; ++limit) {
        std::int64_t at = 0;
        for (const Piece& piece : pieces_of(slab, 4, limit)) {
            ASSERT_EQ(piece.offset, at);
            ASSERT_LE(piece.bytes, std::max<std::int64_t>(limit, 4));
            const std::int64_t element = at / 4;
            ASSERT_EQ(piece.start, (Shape{10 + element / 35, 20 + element / 7 % 5, 30 + element % 7})) << limit;
            ASSERT_EQ(piece.count[0] * piece.count[1] * piece.count[2] * 4, piece.bytes);
            at += piece.bytes;
        }
        ASSERT_EQ(at, 3 * 5 * 7 * 4);
    }
}

TEST(Records, cut_a_scalar_into_itself_and_nothing_into_nothing) {
    const auto scalar = pieces_of(slab_of(2, {}, {}, 4), 4, 1);
    ASSERT_EQ(scalar.size(), 1U);
    EXPECT_EQ(scalar[0].bytes, 4);
    EXPECT_TRUE(pieces_of(slab_of(0, {0, 0}, {0, 4}, 8), 8, 100).empty());
}

}  // namespace
