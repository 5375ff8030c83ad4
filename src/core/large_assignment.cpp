#include "core/large_assignment.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr std::int32_t nobody = -1;
constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// What a row finds at the prices of the day: profits are values less prices.
struct Offer {
    std::int32_t column = nobody;  ///< of the largest profit, the least of equals
    double profit = -infinity;
    double second = -infinity;  ///< the largest profit in any other column
};

class Solver {
public:
    Solver(std::span<const float> values, std::int64_t n)
        : values_(values.data()), n_(n), price_(at(n)), row_of_(at(n), nobody), column_of_(at(n), nobody) {}

    LargeAssignment solve() {
        const double scale = std::sqrt(mean_square());
        if (!take_row_maxima()) {
            if (scale > 0) auction(scale);
            for (const std::int32_t row : rows_left_by_first_come()) augment(row);
        }
        return result();
    }

private:
    const float* row(std::int64_t i) const { return values_ + i * n_; }

    double mean_square() const {
        double sum = 0.0;
        for (std::int64_t i = 0; i < n_; ++i) {
            double of_row = 0.0;
            for (std::int64_t j = 0; j < n_; ++j) of_row += double{row(i)[j]} * double{row(i)[j]};
            sum += of_row / static_cast<double>(n_);
        }
        if (!std::isfinite(sum)) throw Error(ExitCode::internal, "an assignment has a value that is not finite");
        return n_ > 0 ? sum / static_cast<double>(n_) : 0.0;
    }

    /// True where they lie in distinct columns.
    bool take_row_maxima() {
        for (std::int32_t i = 0; i < n_; ++i) {
            const float* values = row(i);
            const float largest = *std::max_element(values, values + n_);
            const std::int32_t column =
                values[i] == largest ? i : static_cast<std::int32_t>(std::find(values, values + n_, largest) - values);
            if (row_of_[at(column)] != nobody) return false;
            row_of_[at(column)] = i;
            column_of_[at(i)] = column;
        }
        return true;
    }

    Offer offer_to(std::int64_t i) const {
        const float* values = row(i);
        Offer offer;
        for (std::int64_t j = 0; j < n_; ++j) {
            const double profit = double{values[j]} - price_[at(j)];
            if (profit <= offer.second) continue;
            if (profit > offer.profit) {
                offer = {static_cast<std::int32_t>(j), profit, offer.profit};
            } else {
                offer.second = profit;
            }
        }
        return offer;
    }

    // A step is far above the rounding of prices: the root mean square is at least 1/n of the largest value.
    void auction(double scale) {
        constexpr double finest = 1e-4, coarser = 6.0;
        double step = scale;
        while (step > finest * scale) {
            bid(step);
            step /= coarser;
        }
        bid(finest * scale);
    }

    // Every row bids until it has a column: the profit beyond the second column's, and `step`.
    void bid(double step) {
        std::fill(row_of_.begin(), row_of_.end(), nobody);
        std::vector<std::int32_t> waiting(at(n_));
        std::iota(waiting.rbegin(), waiting.rend(), 0);
        while (!waiting.empty()) {
            const std::int32_t i = waiting.back();
            waiting.pop_back();
            const Offer offer = offer_to(i);
            price_[at(offer.column)] += (n_ > 1 ? offer.profit - offer.second : 0.0) + step;
            const std::int32_t outbid = std::exchange(row_of_[at(offer.column)], i);
            if (outbid != nobody) waiting.push_back(outbid);
        }
    }

    std::vector<std::int32_t> rows_left_by_first_come() {
        std::fill(row_of_.begin(), row_of_.end(), nobody);
        std::vector<std::int32_t> left;
        for (std::int32_t i = 0; i < n_; ++i) {
            const std::int32_t column = offer_to(i).column;
            if (row_of_[at(column)] == nobody) {
                row_of_[at(column)] = i;
                column_of_[at(i)] = column;
            } else {
                left.push_back(i);
            }
        }
        return left;
    }

    // Dijkstra from a free row over columns: distance is the profit that a path gives away. columns_ holds those whose
    // rows have been looked at, then those as near as the nearest, then the others.
    void augment(std::int32_t start) {
        begin_paths(start);
        std::int64_t looked_at = 0, near = 0, settled = 0;
        double nearest = 0.0;
        std::int32_t end = nobody;
        while (end == nobody) {
            if (looked_at == near) {
                settled = looked_at;
                near = gather_nearest(looked_at, nearest);
                for (std::int64_t k = looked_at; k < near && end == nobody; ++k) {
                    if (row_of_[at(columns_[at(k)])] == nobody) end = columns_[at(k)];
                }
                if (end != nobody) break;
            }
            end = look_at(columns_[at(looked_at++)], nearest, near);
        }
        for (std::int64_t k = 0; k < settled; ++k) {
            const std::int32_t column = columns_[at(k)];
            price_[at(column)] += nearest - distance_[at(column)];
        }
        flip(start, end);
    }

    void begin_paths(std::int32_t start) {
        columns_.resize(at(n_));
        std::iota(columns_.begin(), columns_.end(), 0);
        before_.assign(at(n_), start);
        distance_.resize(at(n_));
        for (std::int64_t j = 0; j < n_; ++j) distance_[at(j)] = price_[at(j)] - double{row(start)[j]};
    }

    /// Brings the nearest of the columns from `from` on to its place; returns where they end.
    std::int64_t gather_nearest(std::int64_t from, double& nearest) {
        nearest = infinity;
        std::int64_t end = from;
        for (std::int64_t k = from; k < n_; ++k) {
            const double distance = distance_[at(columns_[at(k)])];
            if (distance > nearest) continue;
            if (distance < nearest) end = from;
            nearest = distance;
            std::swap(columns_[at(k)], columns_[at(end++)]);
        }
        return end;
    }

    /// Paths over the row of `column`. Returns a free column as near as the nearest, where there is one.
    std::int32_t look_at(std::int32_t column, double nearest, std::int64_t& near) {
        const std::int32_t i = row_of_[at(column)];
        const float* values = row(i);
        const double so_far = nearest - (price_[at(column)] - double{values[column]});
        for (std::int64_t k = near; k < n_; ++k) {
            const std::int32_t j = columns_[at(k)];
            const double distance = so_far + (price_[at(j)] - double{values[j]});
            if (distance >= distance_[at(j)]) continue;
            distance_[at(j)] = distance;
            before_[at(j)] = i;
            if (distance > nearest) continue;
            if (row_of_[at(j)] == nobody) return j;
            std::swap(columns_[at(k)], columns_[at(near++)]);
        }
        return nobody;
    }

    void flip(std::int32_t start, std::int32_t column) {
        for (std::int32_t i = nobody; i != start;) {
            i = before_[at(column)];
            row_of_[at(column)] = i;
            std::swap(column, column_of_[at(i)]);
        }
    }

    // At any prices no permutation is worth more than the rows' best profits and all prices together.
    LargeAssignment result() const {
        LargeAssignment best;
        double bound = std::accumulate(price_.begin(), price_.end(), 0.0);
        for (std::int64_t i = 0; i < n_; ++i) {
            best.value += double{row(i)[column_of_[at(i)]]};
            bound += offer_to(i).profit;
        }
        best.gap = bound - best.value;
        best.column_of = column_of_;
        return best;
    }

    const float* values_;
    std::int64_t n_;
    std::vector<double> price_, distance_;
    std::vector<std::int32_t> row_of_, column_of_;  // of a column: its row; of a row: its column
    std::vector<std::int32_t> columns_, before_;    // of a column: the row before it on the path
};

}  // namespace

LargeAssignment best_large_assignment(std::span<const float> values, std::int64_t n) {
    if (n < 0 || n > std::numeric_limits<std::int32_t>::max() || std::ssize(values) != n * n)
        throw Error(ExitCode::internal, fmt::format("an assignment of {} has {} values", n, values.size()));
    return Solver(values, n).solve();
}

std::int64_t assignment_bytes(std::int64_t n) { return n * (2 * 8 + 6 * 4); }

}  // namespace geom
