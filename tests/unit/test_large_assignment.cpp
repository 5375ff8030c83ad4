#include "core/large_assignment.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "core/assignment.hpp"
#include "support/error_of.hpp"

using namespace geom;
using geom::test::error_of;

namespace {

using Values = std::vector<float>;
using Permutation = std::vector<std::int32_t>;

Permutation identity(std::int64_t n) {
    Permutation columns(static_cast<std::size_t>(n));
    std::iota(columns.begin(), columns.end(), 0);
    return columns;
}

double value_of(const Values& values, const Permutation& columns) {
    double sum = 0.0;
    for (std::size_t i = 0; i < columns.size(); ++i)
        sum += double{values[i * columns.size() + static_cast<std::size_t>(columns[i])]};
    return sum;
}

float largest_of(const Values& values) {
    float largest = 0.0F;
    for (const float value : values) largest = std::max(largest, std::abs(value));
    return largest;
}

/// A permutation, its value, and a gap that rounding alone leaves open.
void expect_proven(const LargeAssignment& found, const Values& values) {
    Permutation columns = found.column_of;
    std::sort(columns.begin(), columns.end());
    ASSERT_EQ(columns, identity(std::ssize(columns)));
    const double rounding = 1e-15 * largest_of(values) * static_cast<double>(values.size());
    EXPECT_NEAR(found.value, value_of(values, found.column_of), rounding);
    EXPECT_LE(std::abs(found.gap), rounding);
}

/// Random numbers; every kind has something that a solver can stumble over.
Values random_values(std::mt19937& random, std::int64_t n, const std::string& kind) {
    const auto number = [&random] { return static_cast<float>(random() % 20001) / 10000.0F - 1.0F; };
    std::vector<float> of_row, of_column;
    for (std::int64_t i = 0; i < n; ++i) {
        of_row.push_back(std::exp(3.0F * number()));
        of_column.push_back(std::exp(3.0F * number()));
    }
    Values values;
    for (std::int64_t i = 0; i < n * n; ++i) {
        const float rows = of_row[static_cast<std::size_t>(i / n)],
                    columns = of_column[static_cast<std::size_t>(i % n)];
        if (kind == "ties") values.push_back(static_cast<float>(random() % 3));
        if (kind == "zeros") values.push_back(random() % 4 != 0 ? 0.0F : std::abs(number()));
        if (kind == "negative") values.push_back(-1.0F - std::abs(number()));
        if (kind == "mixed") values.push_back(number());
        if (kind == "huge and tiny") values.push_back(number() * (random() % 2 == 0 ? 1e12F : 1e-12F));
        if (kind == "strong rows and columns") values.push_back(rows * columns * (number() + std::abs(number())));
        if (kind == "of one rank") values.push_back(rows * columns);
    }
    return values;
}

const std::vector<std::string> kinds{
    "ties", "zeros", "negative", "mixed", "huge and tiny", "strong rows and columns", "of one rank"};

TEST(LargeAssignment, is_the_best_of_all_permutations) {
    std::mt19937 random(1);
    for (const std::string& kind : kinds) {
        for (std::int64_t n = 1; n <= 7; ++n) {
            for (int trial = 0; trial < (n < 7 ? 40 : 6); ++trial) {
                SCOPED_TRACE(testing::Message() << kind << ", n = " << n << ", trial " << trial);
                const Values values = random_values(random, n, kind);
                const LargeAssignment found = best_large_assignment(values, n);
                expect_proven(found, values);
                double best = found.value;
                Permutation columns = identity(n);
                do best = std::max(best, value_of(values, columns));
                while (std::next_permutation(columns.begin(), columns.end()));
                EXPECT_NEAR(found.value, best, 1e-14 * std::abs(largest_of(values)));
            }
        }
    }
}

TEST(LargeAssignment, has_the_value_of_the_one_by_shortest_paths_alone) {
    std::mt19937 random(2);
    for (const std::string& kind : kinds) {
        for (const std::int64_t n : {20, 65, 200}) {
            SCOPED_TRACE(testing::Message() << kind << ", n = " << n);
            const Values values = random_values(random, n, kind);
            const LargeAssignment found = best_large_assignment(values, n);
            expect_proven(found, values);
            const Assignment other = best_assignment(std::vector<double>(values.begin(), values.end()), n);
            EXPECT_NEAR(found.value, other.value, 1e-15 * largest_of(values) * static_cast<double>(n * n));
        }
    }
}

TEST(LargeAssignment, finds_a_planted_permutation_of_700_with_and_without_conflicts) {
    std::mt19937 random(3);
    for (const float noise : {0.1F, 0.9F}) {
        Permutation planted = identity(700);
        std::shuffle(planted.begin(), planted.end(), random);
        Values values = random_values(random, 700, "mixed");
        for (float& value : values) value *= noise;
        for (std::size_t i = 0; i < 700; ++i) values[i * 700 + static_cast<std::size_t>(planted[i])] = 0.75F;
        const LargeAssignment found = best_large_assignment(values, 700);
        expect_proven(found, values);
        EXPECT_GE(found.value, 0.75 * 700);
        if (noise < 0.5F) {
            EXPECT_EQ(found.column_of, planted);
            EXPECT_EQ(found.gap, 0.0);
        }
    }
}

TEST(LargeAssignment, of_equals_is_the_identity) {
    EXPECT_EQ(best_large_assignment(Values(25, 0.0F), 5).column_of, identity(5));
    EXPECT_EQ(best_large_assignment(Values(25, -0.5F), 5).column_of, identity(5));
    EXPECT_EQ(best_large_assignment(Values{1, 1, 0, 2, 2, 2, 0, 0, 0}, 3).column_of, identity(3));
    EXPECT_TRUE(best_large_assignment({}, 0).column_of.empty());
}

TEST(LargeAssignment, refuses_what_is_no_square_of_numbers) {
    EXPECT_NE(error_of([] { best_large_assignment(Values(5), 2); }, ExitCode::internal), "");
    EXPECT_NE(error_of([] { best_large_assignment(Values{NAN}, 1); }, ExitCode::internal), "");
    EXPECT_NE(error_of([] { best_large_assignment(Values{INFINITY}, 1); }, ExitCode::internal), "");
}

}  // namespace
