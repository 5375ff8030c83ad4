// How near the rows of matrices come to those of others when one orthogonal matrix turns them all: what the measure
// `variation` is written with. Operands lie in the host's memory.
#pragma once

#include <cstdint>
#include <vector>

#include "core/range.hpp"
#include "kernels/folded_matrix.hpp"

namespace geom {

/// An n x width matrix X whose rows are turned: rows `part` of `whole`, or with `columns` its columns `part`, as rows.
struct TurnedRows {
    FoldedMatrix whole;
    Range part;
    bool columns = false;

    std::int64_t rows() const noexcept { return part.size(); }
    std::int64_t width() const noexcept { return columns ? whole.stored.rows : whole.stored.cols; }
};

/// Matrices a_i and b_i of equal shape, all with the same number of rows, turned by one T.
struct TiedRows {
    struct Pair {
        TurnedRows a, b;
    };
    std::vector<Pair> pairs;

    std::int64_t rows() const noexcept { return pairs.front().a.rows(); }
    std::int64_t width() const noexcept;  ///< of all a_i beside one another
};

/// Which T, with A and B the a_i and b_i of unit norm beside one another and A B^T = U S V^T.
enum class Turn : std::uint8_t {
    none,      ///< I
    nearest,   ///< V U^T: the orthogonal T for which sum ||T a_i - b_i||^2 is least
    backward,  ///< U V^T, as earlier scripts had it
};

struct TurnedResiduals {
    std::vector<double> residuals;  ///< ||T a_i - b_i||_F of unit norm each, by pair; NaN where one of them is zero
    bool unique = true;             ///< false: other T are as near, and the residuals of single pairs may be others
};

}  // namespace geom
