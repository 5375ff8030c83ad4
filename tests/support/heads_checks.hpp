// Heads to look at, and what has to be true of what heads_of_layer says of them, on any backend.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "measures/heads.hpp"

namespace geom::test {

constexpr double eps = std::numeric_limits<double>::epsilon();

using Rows = std::vector<double>;  // row-major

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

inline Rows random_rows(std::int64_t rows, std::int64_t cols, unsigned seed) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal;
    Rows out(at(rows * cols));
    for (double& x : out) x = normal(generator);
    return out;
}

/// a (m x n) times b (n x p).
inline Rows product(const Rows& a, const Rows& b, std::int64_t n) {
    const auto m = std::ssize(a) / n, p = std::ssize(b) / n;
    Rows out(at(m * p));
    for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t l = 0; l < n; ++l) {
            for (std::int64_t j = 0; j < p; ++j) out[at(i * p + j)] += a[at(i * n + l)] * b[at(l * p + j)];
        }
    }
    return out;
}

inline double dot(const double* a, const double* b, std::int64_t n) { return std::inner_product(a, a + n, b, 0.0); }

/// Every value has a partner of its own within `tolerance` (order among nearly equal ones is left open).
inline void expect_same_spectrum(std::span<const double> re, std::span<const double> im,
                                 std::span<const double> expected_re, std::span<const double> expected_im,
                                 double tolerance) {
    ASSERT_EQ(re.size(), expected_re.size());
    Rows left_re(expected_re.begin(), expected_re.end()), left_im(expected_im.begin(), expected_im.end());
    for (std::size_t i = 0; i < re.size(); ++i) {
        std::size_t nearest = 0;
        double least = std::numeric_limits<double>::infinity();
        for (std::size_t j = 0; j < left_re.size(); ++j) {
            const double distance = std::hypot(re[i] - left_re[j], im[i] - left_im[j]);
            if (distance < least) least = distance, nearest = j;
        }
        EXPECT_LE(least, tolerance) << "value " << i << ": " << re[i] << " + " << im[i] << "i";
        left_re.erase(left_re.begin() + static_cast<std::ptrdiff_t>(nearest));
        left_im.erase(left_im.begin() + static_cast<std::ptrdiff_t>(nearest));
    }
}

inline void expect_same_spectrum(std::span<const double> values, std::span<const double> expected, double tolerance) {
    const Rows zeros(values.size());
    expect_same_spectrum(values, zeros, expected, zeros, tolerance);
}

/// g r_i = s_i l_i, unit rows, orthogonal rows, the sign rule; NaN where the singular value is zero.
inline void expect_directions(const HeadsOfLayer& heads, std::int64_t h, const Rows& q, const Rows& k) {
    const std::int64_t n = heads.head_dim, hidden = heads.hidden;
    const auto row = [&](const std::vector<float>& from, std::int64_t index) {
        const auto first = from.begin() + (h * heads.directions + index) * hidden;
        return Rows(first, first + hidden);
    };
    for (std::int64_t i = 0; i < heads.directions; ++i) {
        const Rows right = row(heads.right_dirs, i), left = row(heads.left_dirs, i);
        const double s = heads.singular_values[at(h * n + i)], largest = heads.singular_values[at(h * n)];
        if (s == 0) {
            EXPECT_TRUE(std::all_of(right.begin(), right.end(), [](double x) { return std::isnan(x); }));
            EXPECT_TRUE(std::all_of(left.begin(), left.end(), [](double x) { return std::isnan(x); }));
            continue;
        }
        Rows image(at(hidden));  // g right = K^T (Q right)
        for (std::int64_t j = 0; j < n; ++j) {
            const double weight = dot(&q[at(j * hidden)], right.data(), hidden);
            for (std::int64_t d = 0; d < hidden; ++d) image[at(d)] += weight * k[at(j * hidden + d)];
        }
        for (std::int64_t d = 0; d < hidden; ++d) {
            ASSERT_NEAR(image[at(d)], s * left[at(d)], 1e-6 * largest) << "direction " << i;
        }
        const auto most =
            std::max_element(right.begin(), right.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
        EXPECT_GT(*most, 0) << "direction " << i;
        for (std::int64_t j = 0; j <= i; ++j) {
            const double expected = i == j ? 1.0 : 0.0;
            EXPECT_NEAR(dot(right.data(), row(heads.right_dirs, j).data(), hidden), expected, 1e-6) << i << " " << j;
            EXPECT_NEAR(dot(left.data(), row(heads.left_dirs, j).data(), hidden), expected, 1e-6) << i << " " << j;
        }
    }
}

/// What heads_of_layer has of a layer whose W_Q were multiplied by 2^q and W_K by 2^k, against those of the layer
/// itself: the same bits, but for the power of two, and for eigenvalues: LAPACK's of matrices that are not symmetric
/// have other last bits when all is twice as large. Of one head.
inline void expect_scaled(const HeadsOfLayer& found, const HeadsOfLayer& plain, int power) {
    const auto scaled = [](const std::vector<double>& values, int exponent) {
        Rows out;
        for (const double value : values) out.push_back(std::ldexp(value, exponent));
        return out;
    };
    const auto same = [](const auto& a, const auto& b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                          [](auto x, auto y) { return x == y || (std::isnan(x) && std::isnan(y)); });
    };
    for (const auto values : {&HeadsOfLayer::singular_values, &HeadsOfLayer::sym_eigs})
        EXPECT_TRUE(same(found.*values, scaled(plain.*values, power)));
    for (const auto values : {&HeadsOfLayer::eigvals_re, &HeadsOfLayer::eigvals_im}) {
        const Rows back = scaled(found.*values, -power);
        for (std::size_t i = 0; i < back.size(); ++i)
            EXPECT_NEAR(back[i], (plain.*values)[i], 1e-13 * plain.singular_values[0]);
    }
    EXPECT_TRUE(same(found.fro_sq, scaled(plain.fro_sq, 2 * power)));
    for (const auto values :
         {&HeadsOfLayer::eff_rank, &HeadsOfLayer::eff_rank_energy, &HeadsOfLayer::stable_rank, &HeadsOfLayer::asymmetry,
          &HeadsOfLayer::positivity, &HeadsOfLayer::sym_positive_energy}) {
        EXPECT_TRUE(same(found.*values, plain.*values));
    }
    EXPECT_TRUE(same(found.right_dirs, plain.right_dirs));
    EXPECT_TRUE(same(found.left_dirs, plain.left_dirs));
}

/// A head whose numbers are known to 60 digits (tests/reference/heads_reference.py).
struct HardHead {
    std::string name;
    std::int64_t head_dim = 0, hidden = 0;
    Rows q, k, singular_values, eigvals_re, eigvals_im, sym_eigs;
};

inline Rows numbers_of(std::istream& lines) {
    std::string line, word;
    std::getline(lines, line);
    std::istringstream words(line);
    Rows numbers;
    while (words >> word) numbers.push_back(std::strtod(word.c_str(), nullptr));
    return numbers;
}

inline std::vector<HardHead> hard_heads() {
    const char* elsewhere =
        std::getenv("GEOM_TEST_DATA");  // where tests run on another machine than they were built on
    std::ifstream file(std::string(elsewhere != nullptr ? elsewhere : GEOM_TEST_DATA) + "/heads/hard_heads.txt");
    std::vector<HardHead> heads;
    std::string word;
    while (file >> word) {
        HardHead& head = heads.emplace_back();
        file >> head.head_dim >> head.hidden >> std::ws;
        std::getline(file, head.name);
        for (auto* numbers :
             {&head.q, &head.k, &head.singular_values, &head.eigvals_re, &head.eigvals_im, &head.sym_eigs}) {
            *numbers = numbers_of(file);
        }
    }
    return heads;
}

}  // namespace geom::test
