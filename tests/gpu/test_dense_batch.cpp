#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>

#include "core/dtype.hpp"
#include "core/error.hpp"
#include "gpu/on_gpu.hpp"
#include "kernels/backend.hpp"
#include "support/small_matrix.hpp"

namespace geom {
namespace {

using namespace test;

using Matrices = std::vector<Matrix>;

Matrix identity(std::int64_t n) {
    Matrix out(n, n);
    for (std::int64_t i = 0; i < n; ++i) out(i, i) = 1;
    return out;
}

Matrix scaled(Matrix a, double factor) {
    for (double& x : a.data) x *= factor;
    return a;
}

double largest(const Matrix& a) {
    double most = 0;
    for (const double x : a.data) most = std::max(most, std::abs(x));
    return most;
}

void expect_orthonormal(const Matrix& a, double tolerance) {
    expect_near(transposed(a) * a, identity(a.cols), tolerance);
}

/// Stored rows: row-major rows x cols of some type.
struct Stored {
    std::vector<std::byte> bytes;
    DType dtype;
    std::int64_t rows, cols;

    MatrixRef at(const std::byte* where) const { return {where, dtype, rows, cols}; }
    MatrixRef here() const { return at(bytes.data()); }
};

/// The columns of W^T as rows of W, rounded to the type.
Stored stored(const Matrix& wt, DType dtype) {
    Stored out{std::vector<std::byte>(at(wt.rows * wt.cols * size_of(dtype))), dtype, wt.cols, wt.rows};
    const auto put = [&out](std::size_t i, auto value) {
        std::memcpy(out.bytes.data() + i * sizeof value, &value, sizeof value);
    };
    for (std::size_t i = 0; i < wt.data.size(); ++i) {
        const double x = wt.data[i];
        if (dtype == DType::bf16) put(i, f32_to_bf16(static_cast<float>(x)));
        if (dtype == DType::f16) put(i, f64_to_f16(x));
        if (dtype == DType::f32) put(i, static_cast<float>(x));
        if (dtype == DType::f64) put(i, x);
    }
    return out;
}

Batch in_place(Matrices& matrices) {
    Batch all{{}, matrices[0].rows, matrices[0].cols, matrices[0].rows};
    for (Matrix& matrix : matrices) all.at.push_back(matrix.data.data());
    return all;
}

/// Matrices of one shape in the device's memory, `gap` elements of NaN below each column.
struct OnDevice {
    Buffer memory;
    Batch all;
};

class DenseBatchOnGpu : public test::OnGpu {
protected:
    OnDevice send(const Matrices& matrices, std::int64_t gap = 0) {
        const std::int64_t rows = matrices[0].rows, cols = matrices[0].cols, ld = rows + gap;
        std::vector<double> host(at(std::ssize(matrices) * ld * cols), nan);
        OnDevice out{gpu_->allocate(std::ssize(host) * 8), {{}, rows, cols, ld}};
        for (std::int64_t m = 0; m < std::ssize(matrices); ++m) {
            out.all.at.push_back(out.memory.as<double>() + m * ld * cols);
            for (std::int64_t j = 0; j < cols; ++j) {
                std::copy_n(&matrices[at(m)].data[at(j * rows)], rows, &host[at((m * cols + j) * ld)]);
            }
        }
        copy(out.memory.data(), host.data(), host.size() * 8);
        return out;
    }

    /// Room for results, NaN throughout.
    OnDevice room(std::int64_t count, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0) {
        Matrix empty(rows, cols);
        std::fill(empty.data.begin(), empty.data.end(), nan);
        return send(Matrices(at(count), empty), gap);
    }

    /// Everything back; what lies between the columns must still be NaN.
    Matrices receive(const OnDevice& matrices) {
        device_->wait();
        const Batch& all = matrices.all;
        std::vector<double> host(at(matrices.memory.size() / 8));
        copy(host.data(), matrices.memory.data(), host.size() * 8);
        Matrices out(at(all.size()), Matrix(all.rows, all.cols));
        for (std::int64_t m = 0; m < all.size(); ++m) {
            for (std::int64_t j = 0; j < all.cols; ++j) {
                const double* column = &host[at((m * all.cols + j) * all.ld)];
                std::copy_n(column, all.rows, &out[at(m)].data[at(j * all.rows)]);
                EXPECT_TRUE(std::all_of(column + all.rows, column + all.ld, [](double x) { return std::isnan(x); }));
            }
        }
        return out;
    }

    MatrixRef send(const Stored& rows) {
        weights_.push_back(gpu_->allocate(std::ssize(rows.bytes)));
        copy(weights_.back().data(), rows.bytes.data(), rows.bytes.size());
        return rows.at(weights_.back().data());
    }

    std::vector<Buffer> weights_;
};

// --- products --------------------------------------------------------------------------------------------------------

constexpr DType types[] = {DType::bf16, DType::f64, DType::f16, DType::f32};

TEST_F(DenseBatchOnGpu, multiplies_stacks_of_mixed_types_with_themselves) {
    for (const std::int64_t hidden : {1, 7, 1024, 1100}) {  // on both sides of a panel
        for (const std::int64_t n : {1, 5}) {
            std::vector<Stored> k, q;
            for (unsigned i = 0; i < 7; ++i) q.push_back(stored(random(hidden, n, i + 1), types[i % 4]));
            for (unsigned i = 0; i < 3; ++i) k.push_back(stored(random(hidden, n, i + 20), types[i]));
            std::vector<MatrixRef> first, second, device_first, device_second, keys;
            for (const Stored& block : k) keys.push_back(send(block));
            for (std::size_t i = 0; i < 7; ++i) {  // key 0, 0, 0, 1, 1, 2, 0
                const std::size_t key = i == 6 ? 0 : i < 3 ? 0 : i < 5 ? 1 : 2;
                first.push_back(k[key].here());
                second.push_back(q[i].here());
                device_first.push_back(keys[key]);
                device_second.push_back(send(q[i]));
            }
            Matrices expected(7, Matrix(2 * n, 2 * n));
            cpu_.stacked_grams(first, second, in_place(expected));
            const OnDevice out = room(7, 2 * n, 2 * n, 3);
            gpu_->stacked_grams(device_first, device_second, out.all);
            const Matrices found = receive(out);
            for (std::size_t i = 0; i < 7; ++i) {
                expect_near(found[i], expected[i], static_cast<double>(hidden) * 4e-15, Compare::lower);
            }
        }
    }
}

TEST_F(DenseBatchOnGpu, widens_stored_numbers_exactly) {
    const std::vector<std::pair<DType, std::vector<double>>> cases{
        {DType::f16, {1, -1.5, 65504, 0x1p-14, 0x1p-24, -0x1.ff8p-15, 0, 0x1.554p-2, INFINITY, -INFINITY, nan}},
        {DType::bf16, {1, -1.5, 0x1.feP127, 0x1p-126, 0x1p-133, 0, -0x1.02p-3, INFINITY, -INFINITY, nan}},
        {DType::f32, {1, 0x1.fffffeP127, 0x1p-149, -0x1.000002p0, INFINITY, nan}},
        {DType::f64, {1, 0x1.fffffffffffffp1000, -3e-300, 0x1p-1074, INFINITY, nan}}};
    for (const auto& [dtype, values] : cases) {
        Matrix wt(std::ssize(values), 1);
        wt.data = values;
        const MatrixRef w = send(stored(wt, dtype));
        const OnDevice one = send(Matrices{identity(1)}), out = room(1, wt.rows, 1);
        gpu_->combine_rows({&w, 1}, one.all, out.all);
        const Matrix found = receive(out)[0];
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (std::isnan(values[i])) {
                EXPECT_TRUE(std::isnan(found.data[i])) << name_of(dtype);
            } else {
                EXPECT_EQ(found.data[i], values[i]) << name_of(dtype);
            }
        }
    }
}

TEST_F(DenseBatchOnGpu, refuses_integer_weights) {
    const OnDevice one = send(Matrices{identity(1)}), out = room(1, 4, 1);
    const MatrixRef w{out.memory.data(), DType::i8, 1, 4};
    EXPECT_THROW(gpu_->combine_rows({&w, 1}, one.all, out.all), Error);
}

TEST_F(DenseBatchOnGpu, combines_rows_of_mixed_types) {
    for (const std::int64_t hidden : {3, 1024, 2100}) {
        std::vector<MatrixRef> here, there;
        std::vector<Stored> blocks;
        Matrices z, expected(4, Matrix(hidden, 3));
        for (unsigned i = 0; i < 4; ++i) {
            blocks.push_back(stored(random(hidden, 6, i + 1), types[i]));
            z.push_back(random(6, 3, i + 9));
        }
        for (const Stored& block : blocks) {
            here.push_back(block.here());
            there.push_back(send(block));
        }
        cpu_.combine_rows(here, in_place(z), in_place(expected));
        const OnDevice vectors = send(z, 2), out = room(4, hidden, 3, 5);
        gpu_->combine_rows(there, vectors.all, out.all);
        const Matrices found = receive(out);
        for (std::size_t i = 0; i < 4; ++i) expect_near(found[i], expected[i], 1e-13);
    }
}

TEST_F(DenseBatchOnGpu, solves_with_transposed_factors) {
    for (const std::int64_t n : {1, 9, 70}) {
        Matrices lower, x;
        for (unsigned i = 0; i < 3; ++i) {
            lower.push_back(random_lower(n, i + 1));
            x.push_back(random(n, 4, i + 5));
        }
        const OnDevice factors = send(lower, 1), columns = send(x, 2);
        gpu_->solve_transposed(factors.all, columns.all);
        const Matrices found = receive(columns);
        for (std::size_t i = 0; i < 3; ++i) {
            expect_near(transposed(lower[i]) * found[i], x[i], 1e-13 * largest(lower[i]) * (1 + largest(found[i])));
        }
    }
}

TEST_F(DenseBatchOnGpu, exchanges_the_halves_of_factors) {
    for (const std::int64_t n : {1, 4, 33}) {
        Matrices lower, expected(5, Matrix(2 * n, 2 * n));
        for (unsigned i = 0; i < 5; ++i) lower.push_back(random_lower(2 * n, i + 1));
        std::vector<double> norms(5), expected_norms(5);
        cpu_.exchange_products(in_place(lower), in_place(expected), expected_norms);
        const OnDevice factors = send(lower, 3), out = room(5, 2 * n, 2 * n, 1);
        gpu_->exchange_products(factors.all, out.all, norms);
        const Matrices found = receive(out);
        for (std::size_t i = 0; i < 5; ++i) {
            expect_near(found[i], expected[i], 1e-13 * largest(expected[i]), Compare::lower);
            EXPECT_NEAR(norms[i], expected_norms[i], 1e-13 * expected_norms[i]);
        }
    }
}

// --- factors ---------------------------------------------------------------------------------------------------------

TEST_F(DenseBatchOnGpu, factors_grams_as_the_processor_does) {
    for (const std::int64_t n : {1, 2, 17, 64}) {
        Matrices grams, expected(6, Matrix(n, n));
        for (unsigned i = 0; i < 6; ++i) {
            const Matrix lower = random_lower(n, i + 1);
            grams.push_back(lower * transposed(lower));
        }
        grams[2] = Matrix(n, n);       // not definite
        grams[3](n - 1, n - 1) = -1;   // nor is this one, at its last pivot
        grams[4](n / 2, n / 2) = nan;  // nor finite
        std::vector<CholeskyReport> reports(6), expected_reports(6);
        cpu_.cholesky(in_place(grams), in_place(expected), expected_reports);
        const OnDevice source = send(grams, 2), out = room(6, n, n, 1);
        gpu_->cholesky(source.all, out.all, reports);
        const Matrices found = receive(out);
        for (std::size_t i = 0; i < 6; ++i) {
            SCOPED_TRACE(i);
            EXPECT_EQ(reports[i].finite, expected_reports[i].finite);
            EXPECT_EQ(reports[i].complete, expected_reports[i].complete);
            if (!expected_reports[i].complete) continue;
            EXPECT_EQ(reports[i].trace, expected_reports[i].trace);
            EXPECT_NEAR(reports[i].min_pivot, expected_reports[i].min_pivot, 1e-12);
            EXPECT_NEAR(reports[i].max_pivot, expected_reports[i].max_pivot, 1e-12);
            EXPECT_NEAR(reports[i].min_sine, expected_reports[i].min_sine, 1e-12);
            expect_near(found[i], expected[i], 1e-12 * largest(expected[i]));
        }
    }
}

TEST_F(DenseBatchOnGpu, gives_no_factor_of_what_is_not_finite_below_its_diagonal) {
    for (const double bad : {nan, HUGE_VAL}) {
        const Matrix lower = random_lower(20, 1);
        Matrix gram = lower * transposed(lower);
        gram(15, 3) = bad;
        const OnDevice source = send(Matrices{gram}), out = room(1, 20, 20);
        CholeskyReport report;
        gpu_->cholesky(source.all, out.all, {&report, 1});
        EXPECT_TRUE(report.finite);
        EXPECT_FALSE(report.complete);
    }
}

TEST_F(DenseBatchOnGpu, leaves_the_grams_as_they_are) {
    const Matrix lower = random_lower(6, 3), gram = lower * transposed(lower);
    const OnDevice source = send(Matrices{gram}), out = room(1, 6, 6);
    CholeskyReport report;
    gpu_->cholesky(source.all, out.all, {&report, 1});
    EXPECT_EQ(receive(source)[0].data, gram.data);
}

TEST_F(DenseBatchOnGpu, factors_by_qr_what_has_more_rows_than_the_hidden_space_or_fewer) {
    for (const auto& [n, hidden] : {std::pair<std::int64_t, std::int64_t>(1, 1), {1, 9}, {6, 50}, {6, 4}, {33, 40}}) {
        Matrices x;
        std::vector<MatrixRef> rows;
        std::vector<Stored> blocks;
        for (unsigned i = 0; i < 3; ++i) {
            x.push_back(random(hidden, n, i + 1));
            if (i == 2) x.back() = Matrix(hidden, n);  // nothing but zeros
            blocks.push_back(stored(x.back(), DType::f64));
            rows.push_back(send(blocks.back()));
        }
        const OnDevice out = room(3, n, n, 2);
        std::vector<double> sines(3), expected_sines(3);
        gpu_->qr_lower(rows, {}, out.all, sines);
        const Matrices lower = receive(out);
        std::vector<MatrixRef> here;
        for (const Stored& block : blocks) here.push_back(block.here());
        Matrices expected(3, Matrix(n, n));
        cpu_.qr_lower(here, {}, in_place(expected), expected_sines);
        for (std::size_t i = 0; i < 3; ++i) {
            expect_near(lower[i] * transposed(lower[i]), transposed(x[i]) * x[i], 1e-12);
            EXPECT_NEAR(sines[i], expected_sines[i], 1e-13);
            for (std::int64_t j = 0; j < n; ++j) {
                for (std::int64_t row = 0; row < n; ++row) {
                    EXPECT_TRUE(lower[i](row, j) == 0.0 || (row >= j && j < hidden));
                }
            }
        }
    }
}

TEST_F(DenseBatchOnGpu, factors_stacks_by_qr) {
    const Matrix k = random(20, 4, 1), q = random(20, 4, 2);
    const std::vector<MatrixRef> first(2, send(stored(k, DType::f64))), second(2, send(stored(q, DType::f64)));
    const OnDevice out = room(2, 8, 8);
    std::vector<double> sines(2);
    gpu_->qr_lower(first, second, out.all, sines);
    Matrix x(20, 8);
    std::copy(q.data.begin(), q.data.end(), std::copy(k.data.begin(), k.data.end(), x.data.begin()));
    for (const Matrix& lower : receive(out)) expect_near(lower * transposed(lower), transposed(x) * x, 1e-12);
    EXPECT_GT(sines[1], 0);
    EXPECT_EQ(sines[0], sines[1]);
}

TEST_F(DenseBatchOnGpu, measures_angles_of_rows_whose_squares_would_vanish) {
    Matrix wt(3, 2);  // rows (1, 0, 0) and (cos, sin, 0), tiny
    wt(0, 0) = 1e-200;
    wt(0, 1) = 5e-200 * std::cos(1e-3);
    wt(1, 1) = 5e-200 * std::sin(1e-3);
    const MatrixRef w = send(stored(wt, DType::f64));
    const OnDevice out = room(1, 2, 2);
    double sine = 0;
    gpu_->qr_lower({&w, 1}, {}, out.all, {&sine, 1});
    EXPECT_NEAR(sine, std::sin(1e-3), 1e-15);
}

TEST_F(DenseBatchOnGpu, maps_by_the_orthonormal_factor_of_qr) {
    for (const auto& [n, hidden] : {std::pair<std::int64_t, std::int64_t>(1, 6), {5, 31}, {8, 8}}) {
        const Matrix wt = random(hidden, n, 1), none(hidden, n);
        const std::vector<MatrixRef> w{send(stored(wt, DType::f64)), send(stored(none, DType::f64))};
        const OnDevice lower = room(2, n, n), unit = send(Matrices(2, identity(n)), 3), out = room(2, hidden, n, 1);
        std::vector<double> sines(2);
        gpu_->qr_lower(w, {}, lower.all, sines);
        gpu_->combine_orthonormal(w, unit.all, out.all);
        const Matrices o = receive(out);
        expect_orthonormal(o[0], 1e-14);
        expect_orthonormal(o[1], 1e-14);
        expect_near(o[0] * transposed(receive(lower)[0]), wt, 1e-13);
    }
}

TEST_F(DenseBatchOnGpu, maps_finitely_where_rows_outnumber_the_hidden_space) {
    const MatrixRef w = send(stored(random(3, 5, 1), DType::f32));
    const OnDevice z = send(Matrices{random(5, 2, 2)}), out = room(1, 3, 2);
    gpu_->combine_orthonormal({&w, 1}, z.all, out.all);
    const Matrix found = receive(out)[0];
    EXPECT_TRUE(std::all_of(found.data.begin(), found.data.end(), [](double x) { return std::isfinite(x); }));
}

// --- singular values -------------------------------------------------------------------------------------------------

struct Svd {
    std::vector<double> s;  // of all
    Matrices u, v;
};

class SingularValuesOnGpu : public DenseBatchOnGpu {
protected:
    Svd svd(const Matrices& left, const Matrices& right, std::int64_t k, std::int64_t gap = 0) {
        const std::int64_t n = left[0].rows, count = std::ssize(left);
        const OnDevice l = send(left, gap), r = send(right, 2 * gap), u = room(count, n, k, gap), v = room(count, n, k);
        Svd found{std::vector<double>(at(count * n), nan), {}, {}};
        gpu_->product_singular_values(l.all, r.all, found.s, u.all, v.all);
        found.u = receive(u);
        found.v = receive(v);
        return found;
    }

    /// One matrix, as it is.
    Svd svd(const Matrix& a, std::int64_t k) { return svd(Matrices{identity(a.rows)}, Matrices{a}, k); }
};

/// a v = s u, orthonormal vectors, descending values.
void expect_pairs(const Matrix& a, std::span<const double> s, const Matrix& u, const Matrix& v, double tolerance) {
    Matrix su = u;
    for (std::int64_t j = 0; j < u.cols; ++j) {
        for (std::int64_t i = 0; i < u.rows; ++i) su(i, j) *= s[at(j)];
    }
    EXPECT_TRUE(std::is_sorted(s.rbegin(), s.rend()));
    expect_near(a * v, su, tolerance * s[0]);
    expect_orthonormal(u, tolerance);
    expect_orthonormal(v, tolerance);
}

/// Singular values in 64 bits of mantissa, descending: one-sided Jacobi in its plainest form.
std::vector<double> precise_singular_values(const Matrix& a) {
    std::vector<std::vector<long double>> columns;
    for (std::int64_t j = 0; j < a.cols; ++j)
        columns.emplace_back(&a.data[at(j * a.rows)], &a.data[at(j * a.rows)] + a.rows);
    const auto dot = [](const auto& x, const auto& y) {
        return std::inner_product(x.begin(), x.end(), y.begin(), 0.0L);
    };
    for (bool again = true; again;) {
        again = false;
        for (std::size_t p = 0; p < columns.size(); ++p) {
            for (std::size_t q = p + 1; q < columns.size(); ++q) {
                const long double pp = dot(columns[p], columns[p]), qq = dot(columns[q], columns[q]);
                const long double pq = dot(columns[p], columns[q]);
                if (std::abs(pq) <= 1e-18L * std::sqrt(pp) * std::sqrt(qq)) continue;
                again = true;
                const long double angle = 0.5L * std::atan2(2 * pq, pp - qq), c = std::cos(angle), s = std::sin(angle);
                for (std::size_t i = 0; i < columns[p].size(); ++i) {
                    const long double x = columns[p][i], y = columns[q][i];
                    columns[p][i] = c * x + s * y;
                    columns[q][i] = c * y - s * x;
                }
            }
        }
    }
    std::vector<double> values;
    for (const auto& column : columns) values.push_back(static_cast<double>(std::sqrt(dot(column, column))));
    std::sort(values.rbegin(), values.rend());
    return values;
}

TEST_F(SingularValuesOnGpu, are_those_of_the_processor_for_every_order_and_number_of_vectors) {
    for (const std::int64_t n : {1, 2, 3, 8, 33}) {
        Matrices left, right;
        for (unsigned i = 0; i < 4; ++i) {
            left.push_back(random_lower(n, 2 * i + 1));
            right.push_back(random_lower(n, 2 * i + 2));
        }
        Matrices u(4, Matrix(n, n)), v(4, Matrix(n, n));
        std::vector<double> expected(at(4 * n));
        cpu_.product_singular_values(in_place(left), in_place(right), expected, in_place(u), in_place(v));
        for (const std::int64_t k : {std::int64_t{0}, std::int64_t{1}, n / 2, n}) {
            SCOPED_TRACE(std::to_string(n) + ", " + std::to_string(k));
            const Svd found = svd(left, right, k, 1);
            for (std::int64_t i = 0; i < 4; ++i) {
                const std::span<const double> s(&found.s[at(i * n)], at(n));
                for (std::int64_t j = 0; j < n; ++j) {
                    EXPECT_NEAR(s[at(j)], expected[at(i * n + j)], static_cast<double>(n) * eps * s[0]);
                }
                expect_pairs(transposed(left[at(i)]) * right[at(i)], s, found.u[at(i)], found.v[at(i)], 1e-13);
                for (std::int64_t j = 0; j < k; ++j) {  // the same pair, but for its sign
                    const auto& [fu, fv, eu, ev] = std::tie(found.u[at(i)], found.v[at(i)], u[at(i)], v[at(i)]);
                    double overlap_u = 0, overlap_v = 0;
                    for (std::int64_t e = 0; e < n; ++e) {
                        overlap_u += fu(e, j) * eu(e, j);
                        overlap_v += fv(e, j) * ev(e, j);
                    }
                    EXPECT_NEAR(std::abs(overlap_u), 1.0, 1e-9);
                    EXPECT_NEAR(overlap_v, overlap_u, 1e-9);
                }
            }
        }
    }
}

TEST_F(SingularValuesOnGpu, are_found_for_a_head_of_128) {
    const Matrices left{random_lower(128, 1)}, right{random_lower(128, 2)};
    const Svd found = svd(left, right, 8);
    Matrices u(1, Matrix(128, 8)), v = u, a = left, b = right;
    std::vector<double> expected(128);
    cpu_.product_singular_values(in_place(a), in_place(b), expected, in_place(u), in_place(v));
    for (std::size_t j = 0; j < 128; ++j) EXPECT_NEAR(found.s[j], expected[j], 128 * eps * expected[0]);
    expect_pairs(transposed(left[0]) * right[0], found.s, found.u[0], found.v[0], 1e-13);
}

TEST_F(SingularValuesOnGpu, are_found_where_shared_memory_holds_no_matrix) {
    Matrix a = scaled(random(180, 180, 3), 1e-6);  // nearly diagonal: few sweeps, in two blocks that do not meet
    for (std::int64_t i = 0; i < 180; ++i) {
        a(i, i) += 1.0 + static_cast<double>(i);
        for (std::int64_t j = 0; j < 180; ++j) a(i, j) *= (i < 90) == (j < 90) ? 1.0 : 0.0;
    }
    const Svd found = svd(a, 3);
    EXPECT_NEAR(found.s[0], 180, 1e-4);
    expect_pairs(a, found.s, found.u[0], found.v[0], 1e-13);
}

/// C D with a well-conditioned C: every value keeps its leading digits (Demmel & Veselic).
TEST_F(SingularValuesOnGpu, keep_relative_accuracy_under_scaled_columns) {
    for (const std::int64_t n : {5, 16}) {
        for (const bool rising : {false, true}) {
            Matrix graded = random_lower(n, 7);
            for (std::int64_t j = 0; j < n; ++j) {
                const auto place = static_cast<double>(rising ? n - 1 - j : j) / static_cast<double>(n - 1);
                for (std::int64_t i = 0; i < n; ++i) graded(i, j) *= std::pow(1e-12, place);
            }
            const Svd found = svd(graded, n);
            const std::vector<double> exact = precise_singular_values(graded);
            EXPECT_LT(exact.back(), 1e-10 * exact[0]);
            for (std::size_t j = 0; j < exact.size(); ++j) EXPECT_NEAR(found.s[j] / exact[j], 1.0, 1e-13) << j;
            expect_pairs(graded, found.s, found.u[0], found.v[0], 1e-13);
        }
    }
}

TEST_F(SingularValuesOnGpu, are_accurate_against_the_largest_whatever_the_condition) {
    Matrix left = random_lower(12, 5), right = random_lower(12, 6);
    for (std::int64_t i = 0; i < 12; ++i) {  // scaled rows: the worst for columns
        for (std::int64_t j = 0; j < 12; ++j) right(i, j) *= std::pow(10.0, -static_cast<double>(i));
    }
    const Matrix a = transposed(left) * right;
    const Svd found = svd(Matrices{left}, Matrices{right}, 12);
    const std::vector<double> exact = precise_singular_values(a);
    for (std::size_t j = 0; j < 12; ++j) EXPECT_NEAR(found.s[j], exact[j], 12 * eps * exact[0]);
    expect_pairs(a, found.s, found.u[0], found.v[0], 1e-13);
}

TEST_F(SingularValuesOnGpu, of_zero_have_orthonormal_vectors) {
    const Svd found = svd(Matrix(7, 7), 7);
    EXPECT_EQ(found.s, std::vector<double>(7));
    expect_orthonormal(found.u[0], 1e-15);
    expect_orthonormal(found.v[0], 1e-15);
}

TEST_F(SingularValuesOnGpu, of_rank_deficient_products_have_orthonormal_vectors) {
    Matrix thin(9, 9), zeros = random_lower(9, 3), twice = random_lower(9, 4);
    const Matrix tall = random(9, 3, 1), wide = random(3, 9, 2);
    thin = tall * wide;                                                  // noise for values
    for (std::int64_t j : {2, 5, 8}) std::fill_n(&zeros(0, j), 9, 0.0);  // zero columns
    for (std::int64_t i = 0; i < 9; ++i) twice(i, 4) = twice(i, 1);      // equal columns
    for (const Matrix& a : {thin, zeros, twice}) {
        const Svd found = svd(a, 9);
        const std::vector<double> exact = precise_singular_values(a);
        for (std::size_t j = 0; j < 9; ++j) EXPECT_NEAR(found.s[j], exact[j], 9 * eps * exact[0]);
        expect_pairs(a, found.s, found.u[0], found.v[0], 1e-13);
    }
}

TEST_F(SingularValuesOnGpu, that_are_equal_have_orthogonal_pairs) {
    Matrix a(20, 20);
    for (std::int64_t i = 0; i < 20; ++i) a(i, (i + 7) % 20) = i < 6 ? 4 : 1;
    const Svd found = svd(a, 6);
    for (std::size_t j = 0; j < 20; ++j) EXPECT_EQ(found.s[j], j < 6 ? 4 : 1);
    expect_pairs(a, found.s, found.u[0], found.v[0], 1e-15);
}

TEST_F(SingularValuesOnGpu, have_the_same_bits_at_every_scale) {
    const Matrix a = random(10, 10, 4);
    const Svd one = svd(a, 10);
    for (const int exponent : {-1000, -300, 300, 1000}) {
        const Svd other = svd(scaled(a, std::ldexp(1.0, exponent)), 10);
        for (std::size_t j = 0; j < 10; ++j) EXPECT_EQ(other.s[j], std::ldexp(one.s[j], exponent));
        EXPECT_EQ(other.u[0].data, one.u[0].data);
        EXPECT_EQ(other.v[0].data, one.v[0].data);
    }
}

TEST_F(SingularValuesOnGpu, have_the_same_bits_in_every_run) {
    Matrices left, right;
    for (unsigned i = 0; i < 9; ++i) {
        left.push_back(random_lower(13, i));
        right.push_back(random_lower(13, i + 50));
    }
    const Svd one = svd(left, right, 5), two = svd(left, right, 5);
    EXPECT_EQ(one.s, two.s);
    for (std::size_t i = 0; i < 9; ++i) {
        EXPECT_EQ(one.u[i].data, two.u[i].data);
        EXPECT_EQ(one.v[i].data, two.v[i].data);
    }
}

TEST_F(SingularValuesOnGpu, do_not_converge_on_NaN) {
    for (const double bad : {nan, HUGE_VAL}) {
        Matrix a = random_lower(6, 2);
        a(3, 3) = bad;
        try {
            svd(a, 2);
            FAIL() << "NaN went unnoticed";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::numerics);
            EXPECT_NE(std::string(error.what()).find("did not converge"), std::string::npos);
        }
    }
}

// --- eigenvalues -----------------------------------------------------------------------------------------------------

TEST_F(DenseBatchOnGpu, finds_eigenvalues_of_symmetric_matrices_from_their_lower_triangles) {
    for (const std::int64_t n : {1, 2, 25, 64}) {
        Matrices symmetric;
        for (unsigned i = 0; i < 5; ++i) symmetric.push_back(random(n, n, i + 1));
        symmetric[3] = Matrix(n, n);
        std::vector<double> found(at(5 * n)), expected(at(5 * n));
        const OnDevice matrices = send(symmetric, 2);
        gpu_->symmetric_eigenvalues(matrices.all, found);
        cpu_.symmetric_eigenvalues(in_place(symmetric), expected);
        for (std::size_t i = 0; i < found.size(); ++i)
            EXPECT_NEAR(found[i], expected[i], 1e-13 * static_cast<double>(n));
    }
}

TEST_F(DenseBatchOnGpu, finds_the_eigenvalues_of_a_chain) {
    Matrix chain(50, 50);  // 2 - 2 cos(i pi / 51)
    for (std::int64_t i = 0; i < 50; ++i) {
        chain(i, i) = 2;
        if (i < 49) chain(i + 1, i) = -1;
    }
    std::vector<double> values(50);
    const OnDevice matrices = send(Matrices{chain});
    gpu_->symmetric_eigenvalues(matrices.all, values);
    for (int i = 0; i < 50; ++i) {
        EXPECT_NEAR(values[at(i)], 2 - 2 * std::cos((i + 1) * std::numbers::pi / 51), 2e-14);
    }
}

/// Cyclic shifts: their eigenvalues are roots of one.
Matrices shifts(std::int64_t n, std::int64_t count) {
    Matrices out(at(count), Matrix(n, n));
    for (std::int64_t m = 0; m < count; ++m) {
        for (std::int64_t i = 0; i < n; ++i) out[at(m)]((i + 1) % n, i) = static_cast<double>(m + 1);
    }
    return out;
}

TEST_F(DenseBatchOnGpu, finds_general_eigenvalues_while_other_verbs_run) {
    Matrices matrices{random(12, 12, 1), random(12, 12, 2), random(12, 12, 3)};
    std::vector<double> re(36), im(36), expected_re(36), expected_im(36);
    cpu_.general_eigenvalues(in_place(matrices), expected_re, expected_im)->finish();
    const OnDevice sent = send(matrices, 4);
    const auto pending = gpu_->general_eigenvalues(sent.all, re, im);
    const OnDevice lower = send(Matrices(3, random_lower(12, 1))), out = room(3, 12, 12);
    std::vector<double> norms(3), host(3 * 144);
    std::vector<CholeskyReport> reports(3);
    gpu_->cholesky(lower.all, sent.all, reports);  // over the matrices
    gpu_->read(lower.all, host);
    pending->finish();
    EXPECT_EQ(re, expected_re);
    EXPECT_EQ(im, expected_im);
    pending->finish();
}

TEST_F(DenseBatchOnGpu, refuses_general_eigenvalues_while_others_are_pending) {
    const OnDevice sent = send(shifts(6, 5));
    std::vector<double> re(30), im(30), other_re(30), other_im(30);
    auto pending = gpu_->general_eigenvalues(sent.all, re, im);
    EXPECT_THROW((void)gpu_->general_eigenvalues(sent.all, other_re, other_im), Error);
    pending->finish();
    EXPECT_NEAR(std::hypot(re[29], im[29]), 5.0, 1e-12);
    auto next = gpu_->general_eigenvalues(sent.all, other_re, other_im);
    pending.reset();  // has finished: the next goes on
    next->finish();
    EXPECT_EQ(other_re, re);
}

TEST_F(DenseBatchOnGpu, leaves_out_general_eigenvalues_that_nobody_wants) {
    const OnDevice sent = send(shifts(40, 50));
    std::vector<double> re(2000), im(2000);
    gpu_->general_eigenvalues(sent.all, re, im).reset();
    gpu_->general_eigenvalues(sent.all, re, im)->finish();
    EXPECT_NEAR(std::hypot(re[1999], im[1999]), 50.0, 1e-10);
    auto pending = gpu_->general_eigenvalues(sent.all, re, im);
    gpu_.reset();
    pending.reset();  // after the batch itself
}

// --- memory ----------------------------------------------------------------------------------------------------------

TEST_F(DenseBatchOnGpu, reads_blocks_without_gaps_in_any_order) {
    Matrix a(3, 3), b(3, 3);
    for (std::size_t i = 0; i < 9; ++i) {
        a.data[i] = static_cast<double>(i);
        b.data[i] = 10 + static_cast<double>(i);
    }
    const OnDevice sent = send(Matrices{a, b}, 2);
    std::vector<double> host(12);
    const std::int64_t order[] = {1, 0, 1};
    gpu_->read(sent.all.block(1, 1, 2, 2).pick(order), host);
    EXPECT_EQ(host, (std::vector<double>{14, 15, 17, 18, 4, 5, 7, 8, 14, 15, 17, 18}));
}

TEST_F(DenseBatchOnGpu, reads_more_than_it_stages_at_once) {
    Matrices large;
    for (unsigned i = 0; i < 3; ++i) large.push_back(random(1000, 800, i));  // 6.4 MB each
    const OnDevice sent = send(large);
    std::vector<double> host(3 * 800000);
    gpu_->read(sent.all, host);
    for (std::size_t i = 0; i < 3; ++i)
        EXPECT_TRUE(std::equal(large[i].data.begin(), large[i].data.end(), &host[i * 800000]));
}

TEST_F(DenseBatchOnGpu, does_nothing_for_no_matrices) {
    const Batch none{{}, 4, 4, 4};
    const auto held = gpu_->held_bytes();
    gpu_->stacked_grams({}, {}, none);
    gpu_->cholesky(none, none, {});
    gpu_->qr_lower({}, {}, none, {});
    gpu_->product_singular_values(none, none, {}, none, none);
    gpu_->solve_transposed(none, none);
    gpu_->combine_rows({}, none, none);
    gpu_->combine_orthonormal({}, none, none);
    gpu_->exchange_products(none, none, {});
    gpu_->symmetric_eigenvalues(none, {});
    gpu_->general_eigenvalues(none, {}, {})->finish();
    gpu_->read(none, {});
    EXPECT_EQ(gpu_->held_bytes(), held);
}

/// One upload after the other without a wait: more than fit the pinned memory for them.
TEST_F(DenseBatchOnGpu, keeps_what_is_on_its_way_when_verbs_follow_without_a_wait) {
    const Matrix lower = random_lower(2, 1), x = random(2, 1, 2);
    const OnDevice factors = send(Matrices(500, lower)), columns = send(Matrices(500, x));
    Matrices expected{x};
    for (int i = 0; i < 60; ++i) {
        gpu_->solve_transposed(factors.all, columns.all);
        Matrices l{lower};
        cpu_.solve_transposed(in_place(l), in_place(expected));
    }
    for (const Matrix& found : receive(columns)) expect_near(found, expected[0], 1e-12);
}

}  // namespace
}  // namespace geom
