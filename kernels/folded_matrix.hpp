// A weight matrix with the norm weights that feed it.
#pragma once

#include "kernels/matrix_ref.hpp"

namespace geom {

/// Element (i, j) is stored (i, j), widened to f64, times fold[j]; as stored where `fold` is null.
struct FoldedMatrix {
    MatrixRef stored;
    const double* fold = nullptr;  ///< [stored.cols], in the host's memory
};

}  // namespace geom
