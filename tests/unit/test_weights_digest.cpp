#include "output/weights_digest.hpp"

#include <gtest/gtest.h>

#include "support/error_of.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;

namespace {

// Rows of which each adds its number plus 1.
RowsRead rows(std::int64_t begin, std::int64_t end, const char* tensor = "q") {
    RowsRead read{tensor, begin, end, 0};
    for (std::int64_t row = begin; row < end; ++row) read.digest += static_cast<std::uint64_t>(row) + 1;
    return read;
}

std::uint64_t sum_of(const std::vector<RowsRead>& all) {
    WeightsDigest digest;
    for (const RowsRead& one : all) digest.add(one);
    return digest.sum();
}

TEST(WeightsDigest, counts_a_row_once_however_often_and_within_whatever_it_was_read) {
    const std::uint64_t whole = rows(0, 12).digest;
    EXPECT_EQ(sum_of({}), 0U);
    EXPECT_EQ(sum_of({rows(0, 12), rows(0, 12)}), whole);
    EXPECT_EQ(sum_of({rows(0, 12), rows(4, 8), rows(8, 12)}), whole);
    EXPECT_EQ(sum_of({rows(4, 8), rows(8, 12), rows(0, 12)}), whole);
    EXPECT_EQ(sum_of({rows(8, 12), rows(0, 4), rows(4, 8)}), whole);
    EXPECT_EQ(sum_of({rows(8, 12), rows(0, 4)}), whole - rows(4, 8).digest);
    EXPECT_EQ(sum_of({rows(0, 4), rows(2, 4), rows(8, 9), rows(8, 12)}), whole - rows(4, 8).digest);
    EXPECT_EQ(sum_of({rows(0, 12), rows(0, 12, "k")}), 2 * whole);
}

TEST(WeightsDigest, of_rows_that_were_read_with_two_digests_is_an_error_of_the_input) {
    WeightsDigest digest;
    digest.add(rows(0, 4));
    RowsRead other = rows(0, 4);
    ++other.digest;
    EXPECT_TRUE(says(error_of([&] { digest.add(other); }), "tensor q", "rows 0 to 3", "--fresh"));
}

TEST(WeightsDigest, of_ranges_that_overlap_otherwise_is_a_bug) {
    for (const RowsRead& second : {rows(2, 6), rows(6, 12), rows(0, 5)}) {
        WeightsDigest digest;
        digest.add(rows(4, 8));
        error_of([&] { digest.add(second); }, ExitCode::internal);
    }
}

TEST(WeightsDigest, rows_go_to_another_rank_as_bytes) {
    WeightsDigest digest;
    for (const RowsRead& one : {rows(0, 4), rows(8, 12), rows(1, 2, "k")}) digest.add(one);
    EXPECT_EQ(rows_of(bytes_of(digest.rows())), digest.rows());
    EXPECT_TRUE(rows_of(bytes_of({})).empty());
}

}  // namespace
