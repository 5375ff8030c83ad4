#include "core/assignment.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Costs are values negated; row and column 0 stand for nothing: row 0 is the free end of every path.
class ShortestPaths {
public:
    ShortestPaths(std::span<const double> values, std::int64_t n)
        : values_(values), n_(n), u_(at(n + 1)), v_(at(n + 1)), row_of_(at(n + 1)), before_(at(n + 1)) {}

    Assignment solve() {
        for (std::int64_t row = 1; row <= n_; ++row) flip(path_from(row));
        Assignment best;
        best.column_of.resize(at(n_));
        for (std::int64_t column = 1; column <= n_; ++column) best.column_of[at(row_of_[at(column)] - 1)] = column - 1;
        for (std::int64_t i = 0; i < n_; ++i) {
            best.value += values_[at(i * n_ + best.column_of[at(i)])];
            best.row_dual.push_back(-u_[at(i + 1)]);
            best.column_dual.push_back(-v_[at(i + 1)]);
        }
        return best;
    }

private:
    // Dijkstra over reduced costs, which duals keep from being negative. Returns the free column it ends at.
    std::int64_t path_from(std::int64_t row) {
        std::vector<double> distance(at(n_ + 1), std::numeric_limits<double>::infinity());
        std::vector<bool> done(at(n_ + 1));
        row_of_[0] = row;
        std::int64_t column = 0;
        while (row_of_[at(column)] != 0) {
            done[at(column)] = true;
            const std::int64_t next = nearest(column, distance, done);
            const double step = distance[at(next)];
            for (std::int64_t j = 0; j <= n_; ++j) {
                if (done[at(j)]) {
                    u_[at(row_of_[at(j)])] += step;
                    v_[at(j)] -= step;
                } else {
                    distance[at(j)] -= step;
                }
            }
            column = next;
        }
        return column;
    }

    std::int64_t nearest(std::int64_t from, std::vector<double>& distance, const std::vector<bool>& done) {
        const std::int64_t row = row_of_[at(from)];
        const double* values = values_.data() + (row - 1) * n_ - 1;
        std::int64_t next = -1;
        for (std::int64_t j = 1; j <= n_; ++j) {
            if (done[at(j)]) continue;
            const double reduced = -values[j] - u_[at(row)] - v_[at(j)];
            if (reduced < distance[at(j)]) {
                distance[at(j)] = reduced;
                before_[at(j)] = from;
            }
            if (next < 0 || distance[at(j)] < distance[at(next)]) next = j;
        }
        return next;
    }

    void flip(std::int64_t column) {
        while (column != 0) {
            row_of_[at(column)] = row_of_[at(before_[at(column)])];
            column = before_[at(column)];
        }
    }

    std::span<const double> values_;
    std::int64_t n_;
    std::vector<double> u_, v_;
    std::vector<std::int64_t> row_of_, before_;  // of a column: its row, 0 while free; the column before it on the path
};

}  // namespace

Assignment best_assignment(std::span<const double> values, std::int64_t n) {
    if (n < 0 || std::ssize(values) != n * n)
        throw Error(ExitCode::internal, fmt::format("an assignment of {} has {} values", n, values.size()));
    if (!std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }))
        throw Error(ExitCode::internal, "an assignment has a value that is not finite");
    return ShortestPaths(values, n).solve();
}

std::vector<std::int64_t> nested_assignment(std::span<const double> values, std::int64_t heads,
                                            std::int64_t group_size) {
    if (group_size < 1 || heads % group_size != 0 || std::ssize(values) != heads * heads) {
        throw Error(ExitCode::internal, fmt::format("an assignment of {} heads in groups of {} has {} values", heads,
                                                    group_size, values.size()));
    }
    const std::int64_t groups = heads / group_size;
    std::vector<Assignment> inside;
    std::vector<double> worth, block(at(group_size * group_size));
    for (std::int64_t g = 0; g < groups * groups; ++g) {
        const std::int64_t row = g / groups * group_size, column = g % groups * group_size;
        for (std::int64_t i = 0; i < group_size; ++i)
            std::copy_n(values.begin() + (row + i) * heads + column, group_size, block.begin() + i * group_size);
        inside.push_back(best_assignment(block, group_size));
        worth.push_back(inside.back().value);
    }
    const Assignment of_groups = best_assignment(worth, groups);
    std::vector<std::int64_t> column_of;
    for (std::int64_t g = 0; g < groups; ++g) {
        const std::int64_t other = of_groups.column_of[at(g)];
        for (const std::int64_t column : inside[at(g * groups + other)].column_of)
            column_of.push_back(other * group_size + column);
    }
    return column_of;
}

}  // namespace geom
