#include "kernels/weight_vectors.hpp"

#include <cblas.h>
#include <fmt/format.h>
#include <lapacke.h>

#include <algorithm>
#include <vector>

#include "core/buffer.hpp"
#include "core/error.hpp"
#include "core/range.hpp"
#include "kernels/check_arguments.hpp"
#include "kernels/cpu/one_matrix.hpp"
#include "kernels/cpu/stored_rows.hpp"

namespace geom {

namespace {

using cpu::at;
using cpu::narrow;

constexpr std::int64_t rows_at_once = 64;  // of memory, a thread
constexpr std::int64_t columns_at_once = 512;
constexpr std::int64_t tile = 1024, inner = 256;  // of similarities

std::int64_t pieces_of(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }
Range piece_at(std::int64_t i, std::int64_t n, std::int64_t size) { return {i * size, std::min((i + 1) * size, n)}; }

/// Some columns of a row, widened and folded.
void read_row(const FoldedMatrix& matrix, std::int64_t row, Range columns, double* to) {
    const MatrixRef& w = matrix.stored;
    cpu::widen({w.data + row * w.cols * size_of(w.dtype), w.dtype, 1, w.cols}, columns, to);
    if (matrix.fold == nullptr) return;
    for (std::int64_t j = 0; j < columns.size(); ++j) to[j] *= matrix.fold[columns.begin + j];
}

/// A thread's own memory, taken when it first works.
class ThreadMemory {
public:
    ThreadMemory(const Workers& workers, std::int64_t bytes) : of_thread_(at(workers.size())), bytes_(bytes) {}

    template <class T>
    T* of(int worker) {
        Buffer& mine = of_thread_[at(worker)];
        if (!mine) mine = allocate_host(bytes_);
        return mine.as<T>();
    }

private:
    std::vector<Buffer> of_thread_;
    std::int64_t bytes_;
};

void squares_of_rows(const FoldedMatrix& matrix, Range rows, double* values, double* squares) {
    const std::int64_t n = matrix.stored.cols;
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        read_row(matrix, i, {0, n}, values);
        double sum = 0.0;
        for (std::int64_t k = 0; k < n; ++k) sum += values[k] * values[k];
        squares[i] = sum;
    }
}

void squares_of_columns(const FoldedMatrix& matrix, Range columns, double* values, double* squares) {
    std::fill(squares + columns.begin, squares + columns.end, 0.0);
    for (std::int64_t k = 0; k < matrix.stored.rows; ++k) {
        read_row(matrix, k, columns, values);
        for (std::int64_t i = 0; i < columns.size(); ++i) squares[columns.begin + i] += values[i] * values[i];
    }
}

}  // namespace

void squared_norms(Workers& workers, const WeightVectors& vectors, std::span<double> squares) {
    require(std::ssize(squares) == vectors.count(), "squared_norms", "not a number for every vector");
    const std::int64_t size = vectors.columns ? columns_at_once : rows_at_once;
    ThreadMemory memory(workers, 8 * (vectors.columns ? columns_at_once : vectors.length()));
    workers.for_each(pieces_of(vectors.count(), size), [&](std::int64_t i, int worker) {
        const auto of = vectors.columns ? squares_of_columns : squares_of_rows;
        of(vectors.matrix, piece_at(i, vectors.count(), size), memory.of<double>(worker), squares.data());
    });
}

// --- similarities ----------------------------------------------------------------------------------------------------
//
//     out  a tile of 1024 x 1024 a thread, from panels of 256 of the vectors' elements:
//
//              plain      <- A' B'^T, summed over terms and panels         A', B' in f32: folded, times the factors
//              magnitude  <- A' B'^T likewise                              (rows: 1024 x 256; columns: 256 x 1024)
//              out         = plain + |magnitude|

namespace {

struct TileMemory {
    float *a, *b, *plain, *magnitude;
    double* row;
    explicit TileMemory(float* from)
        : a(from),
          b(a + tile * inner),
          plain(b + tile * inner),
          magnitude(plain + tile * tile),
          row(reinterpret_cast<double*>(magnitude + tile * tile)) {}
    static std::int64_t bytes() { return 4 * (2 * tile * inner + 2 * tile * tile) + 8 * tile; }
};

/// `part` of the vectors' elements: a row a vector, or, of columns, a column a vector.
struct VectorPanel {
    const WeightVectors& vectors;
    std::span<const double> factor;
    Range which, part;
};

void read_panel(const VectorPanel& panel, double* row, float* to) {
    const bool columns = panel.vectors.columns;
    const Range down = columns ? panel.part : panel.which, along = columns ? panel.which : panel.part;
    for (std::int64_t i = down.begin; i < down.end; ++i) {
        read_row(panel.vectors.matrix, i, along, row);
        if (columns) {
            for (std::int64_t j = 0; j < along.size(); ++j) row[j] *= panel.factor[at(along.begin + j)];
        } else {
            for (std::int64_t j = 0; j < along.size(); ++j) row[j] *= panel.factor[at(i)];
        }
        std::copy_n(row, along.size(), to);
        to += along.size();
    }
}

void add_products(const VectorProducts& x, Range rows, Range cols, const TileMemory& memory, float* out) {
    const blasint m = narrow(rows.size()), n = narrow(cols.size());
    for (std::int64_t p = 0; p < pieces_of(x.a.length(), inner); ++p) {
        const Range part = piece_at(p, x.a.length(), inner);
        const blasint k = narrow(part.size());
        read_panel({x.a, x.a_factor, rows, part}, memory.row, memory.a);
        read_panel({x.b, x.b_factor, cols, part}, memory.row, memory.b);
        cblas_sgemm(CblasRowMajor, x.a.columns ? CblasTrans : CblasNoTrans, x.b.columns ? CblasNoTrans : CblasTrans, m,
                    n, k, 1.0F, memory.a, x.a.columns ? m : k, memory.b, x.b.columns ? n : k, 1.0F, out, n);
    }
}

void check_products(std::span<const VectorProducts> terms, std::int64_t elements) {
    for (const VectorProducts& x : terms) {
        require(x.a.length() == x.b.length(), "similarities", "vectors of unlike length");
        require(x.a.count() * x.b.count() == elements, "similarities", "not a number for every pair of vectors");
        require(std::ssize(x.a_factor) == x.a.count() && std::ssize(x.b_factor) == x.b.count(), "similarities",
                "not a factor for every vector");
    }
}

}  // namespace

void similarities(Workers& workers, std::span<const VectorProducts> plain, std::span<const VectorProducts> magnitude,
                  std::span<float> out) {
    require(!plain.empty() || !magnitude.empty(), "similarities", "no vectors");
    check_products(plain, std::ssize(out));
    check_products(magnitude, std::ssize(out));
    const VectorProducts& any = plain.empty() ? magnitude.front() : plain.front();
    const std::int64_t m = any.a.count(), n = any.b.count(), across = pieces_of(n, tile);
    ThreadMemory memory(workers, TileMemory::bytes());
    workers.for_each(pieces_of(m, tile) * across, [&](std::int64_t i, int worker) {
        const Range rows = piece_at(i / across, m, tile), cols = piece_at(i % across, n, tile);
        const TileMemory mine(memory.of<float>(worker));
        const std::int64_t elements = rows.size() * cols.size();
        std::fill_n(mine.plain, elements, 0.0F);
        std::fill_n(mine.magnitude, elements, 0.0F);
        for (const VectorProducts& x : plain) add_products(x, rows, cols, mine, mine.plain);
        for (const VectorProducts& x : magnitude) add_products(x, rows, cols, mine, mine.magnitude);
        for (std::int64_t r = 0; r < rows.size(); ++r) {
            const float *of_plain = mine.plain + r * cols.size(), *of_magnitude = mine.magnitude + r * cols.size();
            float* to = out.data() + (rows.begin + r) * n + cols.begin;
            for (std::int64_t j = 0; j < cols.size(); ++j) to[j] = of_plain[j] + std::abs(of_magnitude[j]);
        }
    });
}

std::int64_t similarities_bytes(const Workers& workers) { return workers.size() * TileMemory::bytes(); }

// --- small products --------------------------------------------------------------------------------------------------

void strided_products(Workers& workers, const FoldedMatrix& a, const FoldedMatrix& b, std::int64_t step,
                      std::span<double> out) {
    const std::int64_t n = step > 0 ? a.stored.rows / step : 0, length = a.stored.cols;
    require(n > 0 && n * step == a.stored.rows, "strided_products", "rows that the step does not divide");
    require(b.stored.rows == a.stored.rows && b.stored.cols == length, "strided_products", "matrices of unlike shape");
    require(std::ssize(out) == step * n * n, "strided_products", "not a square for every step");
    ThreadMemory memory(workers, 8 * 2 * n * inner);
    workers.for_each(step, [&](std::int64_t s, int worker) {
        double* left = memory.of<double>(worker);
        double* right = left + n * inner;
        for (std::int64_t p = 0; p < pieces_of(length, inner); ++p) {
            const Range part = piece_at(p, length, inner);
            for (std::int64_t i = 0; i < n; ++i) {
                read_row(a, s + i * step, part, left + i * part.size());
                read_row(b, s + i * step, part, right + i * part.size());
            }
            const blasint k = narrow(part.size());
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, narrow(n), narrow(n), k, 1.0, left, k, right, k,
                        p == 0 ? 0.0 : 1.0, out.data() + s * n * n, narrow(n));
        }
    });
}

std::int64_t strided_products_bytes(const Workers& workers, std::int64_t rows, std::int64_t step) {
    return workers.size() * 8 * 2 * (rows / step) * inner;
}

// --- differences -----------------------------------------------------------------------------------------------------

namespace {

constexpr std::int64_t shares = 32;  // of a matrix's rows, when its columns are combined

double combined(const Combination& c, double first, double second, double other) {
    return c.first_factor * first + c.second_factor * second - c.other_factor * other;
}

double square_of_rows(const Combination& c, const FoldedMatrix& a, const FoldedMatrix& b, double* values) {
    const std::int64_t n = a.stored.cols;
    read_row(a, c.first, {0, n}, values);
    read_row(a, c.second, {0, n}, values + n);
    read_row(b, c.other, {0, n}, values + 2 * n);
    double sum = 0.0;
    for (std::int64_t k = 0; k < n; ++k) {
        const double difference = combined(c, values[k], values[k + n], values[k + 2 * n]);
        sum += difference * difference;
    }
    return sum;
}

void add_squares_of_columns(std::span<const Combination> combinations, const FoldedMatrix& a, const FoldedMatrix& b,
                            Range rows, double* values, double* squares) {
    const std::int64_t n = a.stored.cols;
    for (std::int64_t k = rows.begin; k < rows.end; ++k) {
        read_row(a, k, {0, n}, values);
        read_row(b, k, {0, n}, values + n);
        for (std::size_t i = 0; i < combinations.size(); ++i) {
            const Combination& c = combinations[i];
            const double difference = combined(c, values[c.first], values[c.second], values[n + c.other]);
            squares[i] += difference * difference;
        }
    }
}

}  // namespace

void squared_combinations(Workers& workers, const WeightVectors& a, const WeightVectors& b,
                          std::span<const Combination> combinations, std::span<double> squares) {
    require(a.columns == b.columns && a.count() == b.count() && a.length() == b.length(), "squared_combinations",
            "vectors of unlike shape");
    require(squares.size() == combinations.size(), "squared_combinations", "not a number for every combination");
    ThreadMemory memory(workers, 8 * 3 * a.matrix.stored.cols);
    const std::int64_t n = std::ssize(combinations);
    if (!a.columns) {
        workers.for_each(n, [&](std::int64_t i, int worker) {
            squares[at(i)] = square_of_rows(combinations[at(i)], a.matrix, b.matrix, memory.of<double>(worker));
        });
        return;
    }
    std::vector<double> parts(at(shares * n));
    workers.for_each(shares, [&](std::int64_t i, int worker) {
        const std::int64_t rows = a.length();
        add_squares_of_columns(combinations, a.matrix, b.matrix, {rows * i / shares, rows * (i + 1) / shares},
                               memory.of<double>(worker), parts.data() + i * n);
    });
    std::fill(squares.begin(), squares.end(), 0.0);
    for (std::int64_t i = 0; i < shares * n; ++i) squares[at(i % n)] += parts[at(i)];
}

std::int64_t squared_combinations_bytes(const Workers& workers, const WeightVectors& vectors) {
    return 8 * (workers.size() * 3 * vectors.matrix.stored.cols + (vectors.columns ? shares * vectors.count() : 0));
}

// --- polar factors ---------------------------------------------------------------------------------------------------

namespace {

std::int64_t polar_work(std::int64_t n) { return 4 * n * n + 7 * n; }

double polar_factor(double* matrix, std::int64_t n, cpu::Pieces pieces) {
    double* u = pieces.take(n * n);
    double* vt = pieces.take(n * n);
    double* values = pieces.take(n);
    double* work = pieces.take(polar_work(n));
    std::vector<lapack_int> integers(at(8 * n));
    // What is M row-major is M^T column-major, = U S V^T: its polar factor U V^T is M's, transposed as M was.
    cpu::check_lapack(LAPACKE_dgesdd_work(cpu::col_major, 'A', narrow(n), narrow(n), matrix, narrow(n), values, u,
                                          narrow(n), vt, narrow(n), work, narrow(polar_work(n)), integers.data()),
                      "dgesdd", n);
    cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, narrow(n), narrow(n), narrow(n), 1.0, u, narrow(n), vt,
                narrow(n), 0.0, matrix, narrow(n));
    double sum = 0.0;
    for (std::int64_t i = 0; i < n; ++i) sum += values[i];
    return sum;
}

std::int64_t polar_doubles(std::int64_t n) { return 2 * n * n + n + polar_work(n) + 64; }

}  // namespace

void polar_factors(Workers& workers, std::span<double> matrices, std::int64_t n, std::span<double> nuclear_norms) {
    require(std::ssize(matrices) == std::ssize(nuclear_norms) * n * n, "polar_factors",
            "not a number for every matrix");
    ThreadMemory memory(workers, 8 * polar_doubles(n));
    workers.for_each(std::ssize(nuclear_norms), [&](std::int64_t i, int worker) {
        nuclear_norms[at(i)] = polar_factor(matrices.data() + i * n * n, n, {memory.of<double>(worker)});
    });
}

std::int64_t polar_factors_bytes(const Workers& workers, std::int64_t n) {
    return workers.size() * 8 * (polar_doubles(n) + 8 * n);
}

}  // namespace geom
