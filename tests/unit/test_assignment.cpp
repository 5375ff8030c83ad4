#include "core/assignment.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "support/error_of.hpp"

using namespace geom;
using geom::test::error_of;

namespace {

using Values = std::vector<double>;
using Permutation = std::vector<std::int64_t>;

double at(const Values& values, std::int64_t n, std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(i * n + j)];
}

double value_of(const Values& values, const Permutation& columns) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < std::ssize(columns); ++i)
        sum += at(values, std::ssize(columns), i, columns[static_cast<std::size_t>(i)]);
    return sum;
}

Permutation identity(std::int64_t n) {
    Permutation columns(static_cast<std::size_t>(n));
    std::iota(columns.begin(), columns.end(), 0);
    return columns;
}

double best_by_trying_all(const Values& values, std::int64_t n) {
    Permutation columns = identity(n);
    double best = -std::numeric_limits<double>::infinity();
    do {
        best = std::max(best, value_of(values, columns));
    } while (std::next_permutation(columns.begin(), columns.end()));
    return best;
}

bool is_permutation_of_all(Permutation columns) {
    const std::int64_t n = std::ssize(columns);
    std::sort(columns.begin(), columns.end());
    return columns == identity(n);
}

void expect_proven(const Assignment& found, const Values& values, std::int64_t n) {
    ASSERT_TRUE(is_permutation_of_all(found.column_of));
    double largest = 1.0;
    for (const double value : values) largest = std::max(largest, std::abs(value));
    const double rounding = 1e-13 * largest * static_cast<double>(n);
    EXPECT_NEAR(found.value, value_of(values, found.column_of), rounding);
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
            const double slack = found.row_dual[static_cast<std::size_t>(i)] +
                                 found.column_dual[static_cast<std::size_t>(j)] - at(values, n, i, j);
            EXPECT_GE(slack, -rounding);
            if (found.column_of[static_cast<std::size_t>(i)] == j) {
                EXPECT_LE(slack, rounding);
            }
        }
    }
}

/// Random numbers; every kind has something that a solver can stumble over.
Values random_values(std::mt19937& random, std::int64_t n, const std::string& kind) {
    Values values;
    for (std::int64_t i = 0; i < n * n; ++i) {
        const double number = static_cast<double>(random() % 2001) / 1000.0 - 1.0;
        if (kind == "ties") values.push_back(static_cast<double>(random() % 3));
        if (kind == "zeros") values.push_back(random() % 4 != 0 ? 0.0 : std::abs(number));
        if (kind == "negative") values.push_back(-1.0 - std::abs(number));
        if (kind == "mixed") values.push_back(number);
        if (kind == "huge and tiny") values.push_back(number * (random() % 2 == 0 ? 1e12 : 1e-12));
    }
    return values;
}

TEST(Assignment, is_the_best_of_all_permutations) {
    std::mt19937 random(1);
    for (const char* kind : {"ties", "zeros", "negative", "mixed", "huge and tiny"}) {
        for (std::int64_t n = 1; n <= 7; ++n) {
            for (int trial = 0; trial < (n < 7 ? 60 : 12); ++trial) {
                const Values values = random_values(random, n, kind);
                const Assignment found = best_assignment(values, n);
                SCOPED_TRACE(testing::Message() << kind << ", n = " << n << ", trial " << trial);
                expect_proven(found, values, n);
                const double best = best_by_trying_all(values, n);
                EXPECT_NEAR(found.value, best, 1e-12 * std::max(1.0, std::abs(best)));
            }
        }
    }
}

TEST(Assignment, finds_a_planted_permutation_of_64) {
    std::mt19937 random(2);
    for (int trial = 0; trial < 10; ++trial) {
        Permutation planted = identity(64);
        std::shuffle(planted.begin(), planted.end(), random);
        Values values = random_values(random, 64, "mixed");  // below 1
        for (std::int64_t i = 0; i < 64; ++i)
            values[static_cast<std::size_t>(i * 64 + planted[static_cast<std::size_t>(i)])] = 1.0 + 1e-6;
        const Assignment found = best_assignment(values, 64);
        EXPECT_EQ(found.column_of, planted);
        expect_proven(found, values, 64);
    }
}

TEST(Assignment, is_proven_by_its_duals_where_trying_all_would_take_forever) {
    std::mt19937 random(3);
    for (const char* kind : {"ties", "zeros", "negative", "mixed"}) {
        for (const std::int64_t n : {20, 64, 101}) {
            SCOPED_TRACE(testing::Message() << kind << ", n = " << n);
            const Values values = random_values(random, n, kind);
            expect_proven(best_assignment(values, n), values, n);
        }
    }
}

TEST(Assignment, of_equals_is_the_identity_and_always_the_same) {
    EXPECT_EQ(best_assignment(Values(25, 0.0), 5).column_of, identity(5));
    EXPECT_EQ(best_assignment(Values(25, 0.5), 5).column_of, identity(5));
    EXPECT_EQ(nested_assignment(Values(64, 0.0), 8, 2), identity(8));
    EXPECT_TRUE(best_assignment({}, 0).column_of.empty());
}

TEST(Assignment, refuses_what_is_no_square_of_numbers) {
    EXPECT_NE(error_of([] { best_assignment(Values(5), 2); }, ExitCode::internal), "");
    EXPECT_NE(error_of([] { best_assignment(Values{std::nan("")}, 1); }, ExitCode::internal), "");
    EXPECT_NE(error_of([] { best_assignment(Values{INFINITY}, 1); }, ExitCode::internal), "");
    EXPECT_NE(error_of([] { nested_assignment(Values(16), 4, 3); }, ExitCode::internal), "");
    EXPECT_NE(error_of([] { nested_assignment(Values(15), 4, 2); }, ExitCode::internal), "");
}

// Calls `visit` with every assignment of heads that grouped-query attention allows: KV! (G!)^KV of them.
void for_each_nested(std::int64_t heads, std::int64_t group_size,
                     const std::function<void(const Permutation&)>& visit) {
    const std::int64_t groups = heads / group_size;
    Permutation of_groups = identity(groups);
    do {
        Permutation columns(static_cast<std::size_t>(heads));
        const std::function<void(std::int64_t)> fill = [&](std::int64_t group) {
            if (group == groups) return visit(columns);
            Permutation inside = identity(group_size);
            do {
                for (std::int64_t i = 0; i < group_size; ++i) {
                    columns[static_cast<std::size_t>(group * group_size + i)] =
                        of_groups[static_cast<std::size_t>(group)] * group_size + inside[static_cast<std::size_t>(i)];
                }
                fill(group + 1);
            } while (std::next_permutation(inside.begin(), inside.end()));
        };
        fill(0);
    } while (std::next_permutation(of_groups.begin(), of_groups.end()));
}

TEST(NestedAssignment, is_the_best_of_all_that_keep_key_heads_together) {
    std::mt19937 random(4);
    const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{{4, 1}, {4, 2}, {4, 4}, {6, 2}, {6, 3}, {8, 2}};
    for (const auto& [heads, group_size] : shapes) {
        for (const char* kind : {"ties", "zeros", "mixed"}) {
            for (int trial = 0; trial < 20; ++trial) {
                const Values values = random_values(random, heads, kind);
                const Permutation found = nested_assignment(values, heads, group_size);
                ASSERT_TRUE(is_permutation_of_all(found));
                double best = -std::numeric_limits<double>::infinity();
                for_each_nested(heads, group_size,
                                [&](const Permutation& columns) { best = std::max(best, value_of(values, columns)); });
                EXPECT_NEAR(value_of(values, found), best, 1e-12) << heads << " heads in groups of " << group_size;
                for (std::int64_t h = 0; h < heads; ++h) {
                    EXPECT_EQ(found[static_cast<std::size_t>(h)] / group_size,
                              found[static_cast<std::size_t>(h - h % group_size)] / group_size);
                }
            }
        }
    }
}

TEST(NestedAssignment, finds_a_planted_one_that_a_plain_assignment_leaves_for_a_larger_sum) {
    // Groups {0, 1} and {2, 3} trade places; heads 1 and 2 are a little more alike than key heads allow.
    const Values values{0.0, 0.0,  0.9, 0.0,  //
                        0.0, 0.95, 0.0, 0.9,  //
                        0.9, 0.0,  0.0, 0.0,  //
                        0.0, 0.9,  0.0, 0.95};
    EXPECT_EQ(nested_assignment(values, 4, 2), (Permutation{2, 3, 0, 1}));
    EXPECT_EQ(best_assignment(values, 4).column_of, (Permutation{2, 1, 0, 3}));
}

}  // namespace
