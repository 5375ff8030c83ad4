// Tiles of large fp64 products on one thread or all: a tile is computed in a thread's own memory, panel by panel of the
// inner dimension, and its owner puts it where it belongs. Tiles have one size, so that bits depend on matrices alone.
#pragma once

#include <cstdint>

#include "core/range.hpp"
#include "kernels/alignment.hpp"
#include "kernels/cpu/gram_tiles.hpp"
#include "kernels/cpu/large_matrix.hpp"
#include "kernels/workers.hpp"

namespace geom::cpu {

inline constexpr std::int64_t product_tile = 480;  ///< rows and columns of a tile, at most
inline constexpr std::int64_t strip_tile = 240;    ///< rows of a strip of a whole matrix
inline constexpr std::int64_t inner_panel = 256;   ///< of the inner dimension, at a time

/// Who computes tiles: all of a rank's threads, or the calling thread; each with `doubles` of scratch memory.
class Team {
public:
    Team(Workers& workers, double* scratch, std::int64_t doubles)
        : workers_(&workers), scratch_(scratch), doubles_(doubles) {}
    explicit Team(double* scratch) : scratch_(scratch) {}

    /// f(i, pieces) for every i in [0, n), in any order.
    template <class F>
    void for_each(std::int64_t n, F f) const {
        if (workers_ != nullptr) {
            workers_->for_each(n, [&](std::int64_t i, int worker) { f(i, Pieces{scratch_ + worker * doubles_}); });
        } else {
            for (std::int64_t i = 0; i < n; ++i) f(i, Pieces{scratch_});
        }
    }

    /// Of numbers that f returns, in the order of i.
    template <class F>
    double sum(std::int64_t n, F f) const {
        std::vector<double> parts(at(n));
        for_each(n, [&](std::int64_t i, Pieces pieces) { parts[at(i)] = f(i, pieces); });
        double sum = 0;
        for (const double part : parts) sum += part;
        return sum;
    }

private:
    Workers* workers_ = nullptr;
    double* scratch_;
    std::int64_t doubles_ = 0;
};

inline std::int64_t tiles_of(std::int64_t n, std::int64_t tile) { return (n + tile - 1) / tile; }
inline Range tile_at(std::int64_t i, std::int64_t n, std::int64_t tile) {
    return {i * tile, std::min((i + 1) * tile, n)};
}

/// What a product reads: element (i, k) of numbers in memory, or of a weight matrix, times a factor.
class Operand {
public:
    /// data[i * row_step + k * column_step]; one of the steps is 1.
    Operand(const double* data, std::int64_t row_step, std::int64_t column_step)
        : data_(data), row_step_(row_step), column_step_(column_step) {}
    /// factor * x(i, k), or factor * x(k, i).
    Operand(const TurnedRows& x, double factor, bool transposed = false)
        : x_(x), factor_(factor), transposed_(transposed) {}

    /// Some of it, in `buffer` (rows x inner doubles) where it is not numbers in memory.
    Panel panel(Range rows, Range inner, double* buffer) const;

private:
    const double* data_ = nullptr;
    std::int64_t row_step_ = 0, column_step_ = 0;
    TurnedRows x_;
    double factor_ = 1;
    bool transposed_ = false;
};

/// left(rows, inner) right(cols, inner)^T, no more than product_tile rows and cols.
struct TileProduct {
    const Operand& left;
    const Operand& right;
    Range rows, cols, inner;
};

/// out (+)= the product; column-major without gaps. `pieces` has product_scratch() doubles.
void multiply_tile(const TileProduct& product, GramPath path, bool add, double* out, Pieces pieces);

/// For tiles of at most `rows` x `cols`.
std::int64_t product_scratch(std::int64_t rows, std::int64_t cols);

}  // namespace geom::cpu
