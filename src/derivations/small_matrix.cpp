#include "derivations/small_matrix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.hpp"

namespace geom {

namespace {

constexpr double eps = std::numeric_limits<double>::epsilon();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

double dot(const double* a, const double* b, std::int64_t n) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

// Turns two vectors in their plane until they are orthogonal; false when they were.
bool make_orthogonal(double* a, double* b, std::int64_t n) {
    const double aa = dot(a, a, n), bb = dot(b, b, n), ab = dot(a, b, n);
    if (std::abs(ab) <= eps * std::sqrt(aa) * std::sqrt(bb)) return false;
    const double zeta = (bb - aa) / (2.0 * ab);
    const double tangent = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta));
    const double cosine = 1.0 / std::hypot(1.0, tangent), sine = cosine * tangent;
    for (std::int64_t i = 0; i < n; ++i) {
        const double old = a[i];
        a[i] = cosine * old - sine * b[i];
        b[i] = sine * old + cosine * b[i];
    }
    return true;
}

// Of a symmetric matrix: the diagonal, and the elements beside it from index 1 on.
struct Tridiagonal {
    std::vector<double> diagonal, beside;
    std::vector<double> vectors = {};  // [n, n], where wanted: rows that are turned along
};

// Row i (of i + 1 elements) is reflected onto its last but one, from the last row upwards.
Tridiagonal tridiagonal_of(std::vector<double>& a, std::int64_t n) {
    Tridiagonal t{std::vector<double>(at(n)), std::vector<double>(at(n))};
    std::vector<double> product(at(n));
    for (std::int64_t i = n - 1; i > 0; --i) {
        double* v = a.data() + i * n;
        t.diagonal[at(i)] = v[i];
        const double length = std::sqrt(dot(v, v, i));
        t.beside[at(i)] = -std::copysign(length, v[i - 1]);
        if (length == 0.0) continue;
        v[i - 1] -= t.beside[at(i)];
        const double half = -t.beside[at(i)] * v[i - 1];  // |v|^2 / 2
        for (std::int64_t j = 0; j < i; ++j) product[at(j)] = dot(a.data() + j * n, v, i) / half;
        const double shift = dot(product.data(), v, i) / (2.0 * half);
        for (std::int64_t j = 0; j < i; ++j) product[at(j)] -= shift * v[j];
        for (std::int64_t j = 0; j < i; ++j) {
            double* row = a.data() + j * n;
            for (std::int64_t k = 0; k < i; ++k) row[k] -= v[j] * product[at(k)] + product[at(j)] * v[k];
        }
    }
    if (n > 0) t.diagonal[0] = a[0];
    return t;
}

void turn_rows(Tridiagonal& t, std::int64_t i, double sine, double cosine) {
    if (t.vectors.empty()) return;
    const std::int64_t n = std::ssize(t.diagonal);
    double* upper = t.vectors.data() + i * n;
    double* lower = upper + n;
    for (std::int64_t j = 0; j < n; ++j) {
        const double old = lower[j];
        lower[j] = sine * upper[j] + cosine * old;
        upper[j] = cosine * upper[j] - sine * old;
    }
}

// One implicit QL step on elements first .. last, which no zero beside the diagonal divides.
void ql_step(Tridiagonal& t, std::int64_t first, std::int64_t last) {
    std::vector<double>&d = t.diagonal, &e = t.beside;
    const double apart = (d[at(first + 1)] - d[at(first)]) / (2.0 * e[at(first + 1)]);
    double g = d[at(last)] - d[at(first)] + e[at(first + 1)] / (apart + std::copysign(std::hypot(apart, 1.0), apart));
    double sine = 1.0, cosine = 1.0, p = 0.0;
    for (std::int64_t i = last - 1; i >= first; --i) {
        const double f = sine * e[at(i + 1)], b = cosine * e[at(i + 1)], length = std::hypot(f, g);
        if (i + 2 <= last) e[at(i + 2)] = length;
        if (length == 0.0) {
            d[at(i + 1)] -= p;
            return;
        }
        sine = f / length;
        cosine = g / length;
        turn_rows(t, i, sine, cosine);
        g = d[at(i + 1)] - p;
        const double turn = (d[at(i)] - g) * sine + 2.0 * cosine * b;
        p = sine * turn;
        d[at(i + 1)] = g + p;
        g = cosine * turn - b;
    }
    d[at(first)] -= p;
    e[at(first + 1)] = g;
}

}  // namespace

std::vector<double> singular_values_of(std::span<const double> matrix, std::int64_t rows, std::int64_t cols) {
    // Vectors along the longer side are made orthogonal; their lengths are the singular values.
    const bool wide = cols >= rows;
    const std::int64_t count = wide ? rows : cols, length = wide ? cols : rows;
    std::vector<double> vectors(matrix.begin(), matrix.end());
    for (std::int64_t i = 0; !wide && i < count; ++i) {
        for (std::int64_t j = 0; j < length; ++j) vectors[at(i * length + j)] = matrix[at(j * cols + i)];
    }
    constexpr int sweeps = 60;
    bool turned = true;
    for (int sweep = 0; turned && sweep < sweeps; ++sweep) {
        turned = false;
        for (std::int64_t i = 0; i < count; ++i) {
            for (std::int64_t j = i + 1; j < count; ++j) {
                if (make_orthogonal(vectors.data() + i * length, vectors.data() + j * length, length)) turned = true;
            }
        }
    }
    std::vector<double> values;
    for (std::int64_t i = 0; i < count; ++i) {
        const double* vector = vectors.data() + i * length;
        values.push_back(std::sqrt(dot(vector, vector, length)));
    }
    std::sort(values.rbegin(), values.rend());
    return values;
}

namespace {

// Its diagonal becomes the eigenvalues, its vectors' rows what they were turned into.
void make_diagonal(Tridiagonal& t) {
    const std::int64_t n = std::ssize(t.diagonal);
    std::int64_t steps = 0;
    for (std::int64_t first = 0; first < n; ++first) {
        for (;;) {
            std::int64_t last = first;
            while (last + 1 < n && std::abs(t.beside[at(last + 1)]) >
                                       eps * (std::abs(t.diagonal[at(last)]) + std::abs(t.diagonal[at(last + 1)])))
                ++last;
            if (last == first) break;
            if (++steps > 60 * n)
                throw Error(ExitCode::numerics, fmt::format("eigenvalues of order {} did not converge", n));
            ql_step(t, first, last);
        }
    }
}

// Takes a vector of the tridiagonal form back to the matrix: row i of `reflected` holds what row i was reflected along.
void reflect_back(const std::vector<double>& reflected, std::int64_t n, double* vector) {
    for (std::int64_t i = 1; i < n; ++i) {
        const double* v = reflected.data() + i * n;
        const double square = dot(v, v, i);
        if (square == 0.0) continue;
        const double along = 2.0 * dot(v, vector, i) / square;
        for (std::int64_t j = 0; j < i; ++j) vector[j] -= along * v[j];
    }
}

}  // namespace

std::vector<double> leading_eigenvectors_of(std::vector<double> matrix, std::int64_t n, std::int64_t k) {
    Tridiagonal t = tridiagonal_of(matrix, n);
    t.vectors.assign(at(n * n), 0.0);
    for (std::int64_t i = 0; i < n; ++i) t.vectors[at(i * n + i)] = 1.0;
    make_diagonal(t);
    std::vector<std::int64_t> order(at(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return t.diagonal[at(a)] > t.diagonal[at(b)]; });
    std::vector<double> leading;
    for (std::int64_t j = 0; j < k; ++j) {
        double* vector = t.vectors.data() + order[at(j)] * n;
        reflect_back(matrix, n, vector);
        leading.insert(leading.end(), vector, vector + n);
    }
    return leading;
}

std::vector<double> symmetric_eigenvalues_of(std::vector<double> matrix, std::int64_t n) {
    Tridiagonal t = tridiagonal_of(matrix, n);
    make_diagonal(t);
    std::sort(t.diagonal.begin(), t.diagonal.end(), [](double a, double b) { return std::abs(a) > std::abs(b); });
    return std::move(t.diagonal);
}

}  // namespace geom
