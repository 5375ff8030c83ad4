#include "derivations/null_models.hpp"

#include <gtest/gtest.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "derivations/statistics.hpp"

using namespace geom;

namespace {

constexpr int copies = 2000, rotated_copies = 20000;

using Vectors = std::vector<std::vector<double>>;  // rows

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// Independent of the generator under test, whose numbers these have to resemble.
class Random {
public:
    explicit Random(unsigned seed) : bits_(seed) {}
    double normal() { return normal_(bits_); }
    Vectors normals(std::int64_t rows, std::int64_t cols) {
        Vectors vectors(static_cast<std::size_t>(rows), std::vector<double>(static_cast<std::size_t>(cols)));
        for (auto& row : vectors) {
            for (double& number : row) number = normal();
        }
        return vectors;
    }
    /// The first `rows` rows of a Haar matrix of order `size`.
    Vectors haar(std::int64_t rows, std::int64_t size) {
        Vectors vectors = normals(rows, size);
        for (std::size_t i = 0; i < vectors.size(); ++i) {
            for (int twice = 0; twice < 2; ++twice) {
                for (std::size_t j = 0; j < i; ++j) {
                    const double along = dot(vectors[i], vectors[j]);
                    for (std::size_t x = 0; x < vectors[i].size(); ++x) vectors[i][x] -= along * vectors[j][x];
                }
            }
            const double length = std::sqrt(dot(vectors[i], vectors[i]));
            for (double& number : vectors[i]) number /= length;
        }
        return vectors;
    }

private:
    std::mt19937 bits_;
    std::normal_distribution<double> normal_;
};

/// Mean and sd within three standard errors, which the sample's own fourth moment gives.
void expect_moments(const std::vector<double>& sample, double mean, double sd) {
    const auto n = static_cast<double>(sample.size());
    double second = 0.0, fourth = 0.0, found = 0.0;
    for (const double x : sample) {
        found += x / n;
        second += (x - mean) * (x - mean) / n;
        fourth += std::pow(x - mean, 4) / n;
    }
    EXPECT_LE(std::abs(found - mean), 3.0 * sd / std::sqrt(n)) << "mean " << found << ", expected " << mean;
    EXPECT_LE(std::abs(second - sd * sd), 3.0 * std::sqrt((fourth - second * second) / n))
        << "sd " << std::sqrt(second) << ", expected " << sd;
}

/// Kolmogorov-Smirnov at 1%: sqrt(n) times the largest distance of the distribution functions is below 1.63.
void expect_uniform(std::vector<double> p) {
    std::sort(p.begin(), p.end());
    const auto n = static_cast<double>(p.size());
    double distance = 0.0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        const auto rank = static_cast<double>(i);
        distance = std::max({distance, (rank + 1.0) / n - p[i], p[i] - rank / n});
    }
    EXPECT_LT(distance * std::sqrt(n), 1.63);
}

struct Spectra {
    const char* name;
    std::vector<double> left, right;
};

const std::vector<Spectra>& spectra() {
    static const std::vector<Spectra> all{
        {"flat", std::vector<double>(12, 1.0), std::vector<double>(12, 2.0)},
        {"steep", {1.0, 0.4, 0.2, 0.1, 0.05}, {3.0, 2.0, 0.5, 0.1, 0.0}},
        {"one dimension", {1.0}, {1.0}},
        {"steep and flat", {1.0, 0.1, 0.1}, std::vector<double>(10, 1.0)},
    };
    return all;
}

/// Cosines of g = U diag(left) V and g' = diag(right) of order D, U and V Haar.
std::vector<double> two_sided_cosines(const Spectra& of, std::int64_t hidden, Random& random) {
    const double norms = std::sqrt(dot(of.left, of.left) * dot(of.right, of.right));
    std::vector<double> cosines;
    for (int copy = 0; copy < copies; ++copy) {
        const Vectors u = random.haar(std::ssize(of.left), hidden), v = random.haar(std::ssize(of.left), hidden);
        double product = 0.0;
        for (std::size_t i = 0; i < of.left.size(); ++i) {
            for (std::size_t j = 0; j < of.right.size(); ++j) product += of.left[i] * of.right[j] * u[i][j] * v[i][j];
        }
        cosines.push_back(product / norms);
    }
    return cosines;
}

TEST(TwoSidedNull, of_haar_rotated_operators_has_mean_0_and_sd_1_over_hidden) {
    Random random(1);
    for (const Spectra& of : spectra()) {
        SCOPED_TRACE(of.name);
        expect_moments(two_sided_cosines(of, 48, random), 0.0, 1.0 / 48);
    }
}

TEST(TwoSidedNull, gives_uniform_p_to_haar_rotated_operators_flat_or_steep) {
    Random random(12);
    const std::int64_t hidden = 96;
    for (const Spectra& of : spectra()) {
        SCOPED_TRACE(of.name);
        const auto rank = std::max(std::ssize(of.left), std::ssize(of.right));
        std::vector<double> values(static_cast<std::size_t>(2 * rank), not_a_number);  // NaN: padding
        std::copy(of.left.begin(), of.left.end(), values.begin());
        std::copy(of.right.begin(), of.right.end(), values.begin() + rank);
        const bool steep = participation_ratio(of.left) * participation_ratio(of.right) < steep_product;
        EXPECT_EQ(steep, std::string(of.name) != "flat");
        std::vector<SteepPair> pairs;
        std::vector<double> normal;
        for (const double cosine : two_sided_cosines(of, hidden, random)) {
            pairs.push_back({0, 1, cosine * static_cast<double>(hidden)});
            normal.push_back(normal_tail(pairs.back().z));
        }
        expect_uniform(simulated_tails(energies_of(values, rank), pairs, 500, 7));
        if (!steep) expect_uniform(normal);
    }
}

TEST(SteepNull, tails_are_those_of_the_sum_they_stand_for) {
    Random random(3);
    const std::vector<double> left{1.0, 0.5, 0.25}, right{1.0, 0.8, 0.1};
    std::vector<double> values = left;
    values.insert(values.end(), right.begin(), right.end());
    std::vector<SteepPair> pairs;
    for (const double z : {0.0, 0.3, -1.0, 2.0, 3.0}) pairs.push_back({0, 1, z});
    const auto tails = simulated_tails(energies_of(values, 3), pairs, 20000, 1);
    const double norms = std::sqrt(dot(left, left) * dot(right, right));
    constexpr int draws = 200000;
    std::vector<double> beyond(pairs.size());
    for (int draw = 0; draw < draws; ++draw) {
        double sum = 0.0;
        for (const double s : left) {
            for (const double t : right) sum += s * t * random.normal() * random.normal();
        }
        for (std::size_t i = 0; i < pairs.size(); ++i) beyond[i] += std::abs(sum / norms) >= std::abs(pairs[i].z);
    }
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        const double p = beyond[i] / draws;
        EXPECT_NEAR(tails[i], p, 4.0 * std::sqrt(p * (1.0 - p) / draws) + 0.02 * p) << pairs[i].z;
    }
    EXPECT_EQ(tails[0], 1.0);
    EXPECT_GT(tails[4], 1.5 * normal_tail(3.0)) << "heavier than normal";
}

TEST(SteepNull, tails_do_not_depend_on_the_order_of_pairs) {
    std::vector<double> values;
    for (int i = 0; i < 4 * 6; ++i) values.push_back(1.0 / (1 + i % 6) / (1 + i / 6 * (i % 6)));
    const Energies energies = energies_of(values, 6);
    const std::vector<SteepPair> some{{0, 1, 1.5}, {0, 3, 2.5}, {2, 1, 0.5}}, other{some[2], some[0], some[1]};
    const auto tails = simulated_tails(energies, some, 100, 5), again = simulated_tails(energies, other, 100, 5);
    EXPECT_EQ(tails, (std::vector<double>{again[1], again[2], again[0]}));
}

TEST(ParticipationRatio, counts_equal_singular_values_and_leaves_padding_out) {
    const double nan = not_a_number;
    EXPECT_DOUBLE_EQ(participation_ratio(std::vector<double>(7, 3.0)), 7.0);
    EXPECT_DOUBLE_EQ(participation_ratio(std::vector<double>{2.0, 1.0, nan}), 25.0 / 17.0);
    EXPECT_DOUBLE_EQ(participation_ratio(std::vector<double>{2e200, 1e200, 0.0}), 25.0 / 17.0);
    EXPECT_TRUE(std::isnan(participation_ratio(std::vector<double>{0.0, 0.0})));
    EXPECT_TRUE(std::isnan(participation_ratio({})));
}

// --- one rotation of the basis ---

/// g = K^T Q of order D as a dense matrix.
Vectors operator_of(const Vectors& k, const Vectors& q) {
    Vectors g(k[0].size(), std::vector<double>(k[0].size()));
    for (std::size_t i = 0; i < k.size(); ++i) {
        for (std::size_t a = 0; a < g.size(); ++a) {
            for (std::size_t b = 0; b < g.size(); ++b) g[a][b] += k[i][a] * q[i][b];
        }
    }
    return g;
}

double product_of(const Vectors& g, const Vectors& h) {
    double sum = 0.0;
    for (std::size_t a = 0; a < g.size(); ++a) sum += dot(g[a], h[a]);
    return sum;
}

/// Trace, norm and asymmetry of a dense operator, as group heads has them.
Invariants invariants_of_dense(const Vectors& g) {
    double trace = 0.0, apart = 0.0;
    for (std::size_t a = 0; a < g.size(); ++a) {
        trace += g[a][a];
        for (std::size_t b = 0; b < g.size(); ++b) apart += (g[a][b] - g[b][a]) * (g[a][b] - g[b][a]);
    }
    const double norm_sq = product_of(g, g);
    return invariants_of(trace, norm_sq, std::sqrt(apart / norm_sq), std::ssize(g));
}

/// An operator of rank `rank` with something symmetric in it: Q = share K + rest.
std::pair<Vectors, Vectors> operator_with_trace(Random& random, std::int64_t rank, std::int64_t hidden, double share) {
    const Vectors k = random.normals(rank, hidden);
    Vectors q = random.normals(rank, hidden);
    for (std::size_t i = 0; i < q.size(); ++i) {
        for (std::size_t a = 0; a < q[i].size(); ++a) q[i][a] += share * k[i][a];
    }
    return {k, q};
}

TEST(SharedBasisNull, takes_symmetric_and_antisymmetric_parts_from_trace_norm_and_asymmetry) {
    Random random(4);
    const auto [k, q] = operator_with_trace(random, 3, 8, 0.7);
    const Vectors g = operator_of(k, q);
    double trace = 0.0, symmetric = 0.0, antisymmetric = 0.0;
    for (std::size_t a = 0; a < 8; ++a) trace += g[a][a];
    for (std::size_t a = 0; a < 8; ++a) {
        for (std::size_t b = 0; b < 8; ++b) {
            const double s = (g[a][b] + g[b][a]) / 2 - (a == b ? trace / 8 : 0.0), o = (g[a][b] - g[b][a]) / 2;
            symmetric += s * s;
            antisymmetric += o * o;
        }
    }
    const double norm_sq = product_of(g, g);
    const Invariants found = invariants_of_dense(g);
    EXPECT_NEAR(found.trace, trace / std::sqrt(norm_sq), 1e-14);
    EXPECT_NEAR(found.symmetric, symmetric / norm_sq, 1e-14);
    EXPECT_NEAR(found.antisymmetric, antisymmetric / norm_sq, 1e-14);
}

TEST(SharedBasisNull, of_operators_in_one_randomly_rotated_basis_has_the_mean_and_sd_of_the_formula) {
    Random random(5);
    constexpr std::int64_t hidden = 20;
    for (const auto& [rank, share] : std::vector<std::pair<std::int64_t, double>>{{1, 0.0}, {2, 1.0}, {8, 0.5}}) {
        SCOPED_TRACE(testing::Message() << "rank " << rank);
        const auto [k, q] = operator_with_trace(random, rank, hidden, share);
        const auto [k_b, q_b] = operator_with_trace(random, rank, hidden, share);
        const Vectors g = operator_of(k, q), other = operator_of(k_b, q_b);
        const double norms = std::sqrt(product_of(g, g) * product_of(other, other));
        const Null null = shared_basis_null(invariants_of_dense(g), invariants_of_dense(other), hidden);
        std::vector<double> cosines, p;
        for (int copy = 0; copy < rotated_copies; ++copy) {
            const Vectors rotation = random.haar(hidden, hidden);
            const auto rotated = [&](const Vectors& rows) {
                Vectors turned = rows;
                for (std::size_t i = 0; i < rows.size(); ++i) {
                    for (std::size_t a = 0; a < rotation.size(); ++a) turned[i][a] = dot(rotation[a], rows[i]);
                }
                return turned;
            };
            cosines.push_back(product_of(g, operator_of(rotated(k_b), rotated(q_b))) / norms);
            p.push_back(normal_tail((cosines.back() - null.mean) / null.sd));
        }
        expect_moments(cosines, null.mean, null.sd);
        if (rank == 8) expect_uniform(p);
    }
}

// --- matched heads ---

/// Mean over heads of the sizes in the best assignment that keeps groups together, by trying all of them.
double best_mean(const std::vector<double>& sizes, std::int64_t heads, std::int64_t group_size) {
    std::vector<std::int64_t> columns(static_cast<std::size_t>(heads));
    std::iota(columns.begin(), columns.end(), 0);
    double best = 0.0;
    do {
        bool together = true;
        double sum = 0.0;
        for (std::int64_t h = 0; h < heads; ++h) {
            const std::int64_t to = columns[static_cast<std::size_t>(h)];
            together =
                together && to / group_size == columns[static_cast<std::size_t>(h - h % group_size)] / group_size;
            sum += sizes[static_cast<std::size_t>(h * heads + to)];
        }
        if (together) best = std::max(best, sum);
    } while (std::next_permutation(columns.begin(), columns.end()));
    return best / static_cast<double>(heads);
}

TEST(MatchedNull, is_the_mean_of_the_best_of_all_assignments_of_unrelated_heads) {
    Random random(6);
    constexpr int draws = 4000;
    for (const auto& [heads, group_size] : std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {4, 1}, {4, 2}}) {
        const MatchedNull null(heads, group_size, 9);
        // 0: z normal; 1: z = a b of two operators of rank 1
        for (const double steepness : {0.0, 1.0}) {
            double mean = 0.0;
            for (int draw = 0; draw < draws; ++draw) {
                std::vector<double> sizes(static_cast<std::size_t>(heads * heads));
                for (double& size : sizes) size = std::abs(random.normal() * (steepness > 0.0 ? random.normal() : 1.0));
                mean += best_mean(sizes, heads, group_size) / draws;
            }
            EXPECT_NEAR(null.mean_abs_z(steepness), mean, 0.04) << heads << " heads, steepness " << steepness;
        }
    }
    EXPECT_NEAR(MatchedNull(1, 1, 1).mean_abs_z(0.0), std::sqrt(2.0 / M_PI), 0.02);
}

TEST(MatchedNull, between_what_was_simulated_is_between_the_values_there) {
    const MatchedNull null(16, 2, 3);
    for (const double steepness : {0.01, 0.1, 0.2, 0.3, 0.7}) {
        const double z = null.mean_abs_z(steepness);
        EXPECT_GT(z, 1.0);
        EXPECT_LT(z, 3.0);
        EXPECT_NEAR(z, null.mean_abs_z(steepness + 1e-9), 1e-6);
    }
    EXPECT_EQ(null.mean_abs_z(2.0), null.mean_abs_z(1.0)) << "steeper than one direction is nothing";
}

// --- signs ---

/// Signs of the eigenvalues of g + g^T by descending magnitude, from the dense operator of order D.
std::vector<int> dense_signs(Random& random, std::int64_t head_dim, std::int64_t hidden) {
    const Vectors g = operator_of(random.normals(head_dim, hidden), random.normals(head_dim, hidden));
    std::vector<double> sum, values(static_cast<std::size_t>(hidden));
    for (std::size_t a = 0; a < g.size(); ++a) {
        for (std::size_t b = 0; b < g.size(); ++b) sum.push_back(g[a][b] + g[b][a]);
    }
    const auto n = static_cast<lapack_int>(hidden);
    EXPECT_EQ(LAPACKE_dsyev(LAPACK_ROW_MAJOR, 'N', 'L', n, sum.data(), n, values.data()), 0);
    std::sort(values.begin(), values.end(), [](double a, double b) { return std::abs(a) > std::abs(b); });
    std::vector<int> signs;
    for (std::int64_t i = 0; i < 2 * head_dim; ++i) signs.push_back(values[static_cast<std::size_t>(i)] > 0 ? 1 : 0);
    return signs;
}

TEST(SignAgreement, of_simulated_heads_deviates_as_that_of_dense_operators_does) {
    Random random(7);
    const std::vector<std::int32_t> leading{2, 4, 8};
    const auto found = sign_agreement_sd(4, 16, leading, 11);
    constexpr int pairs = 4000;
    for (std::size_t k = 0; k < leading.size(); ++k) {
        double square = 0.0, mean = 0.0;
        for (int pair = 0; pair < pairs; ++pair) {
            const auto a = dense_signs(random, 4, 16), b = dense_signs(random, 4, 16);
            double share = 0.0;
            for (std::int32_t i = 0; i < leading[k]; ++i)
                share += a[static_cast<std::size_t>(i)] == b[static_cast<std::size_t>(i)] ? 1.0 / leading[k] : 0.0;
            mean += share / pairs;
            square += (share - 0.5) * (share - 0.5) / pairs;
        }
        EXPECT_NEAR(mean, 0.5, 0.03);
        EXPECT_NEAR(found[k] / std::sqrt(square), 1.0, 0.12) << leading[k];
    }
}

TEST(SignAgreement, of_heads_of_one_dimension_is_all_or_nothing) {
    EXPECT_EQ(sign_agreement_sd(1, 10, std::vector<std::int32_t>{2}, 1), std::vector<double>{0.5});
}

// --- many at once ---

TEST(BenjaminiHochberg, rejects_up_to_the_last_p_below_its_line) {
    // The example of Benjamini and Hochberg (1995): at 5% the first four of fifteen.
    const std::vector<double> p{0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
                                0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
    EXPECT_DOUBLE_EQ(share_beyond(p, 0.05), 4.0 / 15.0);
    auto shuffled = p;
    std::reverse(shuffled.begin(), shuffled.end());
    shuffled.insert(shuffled.begin() + 3, not_a_number);
    EXPECT_DOUBLE_EQ(share_beyond(shuffled, 0.05), 4.0 / 15.0) << "in any order, NaN left out";
    EXPECT_EQ(share_beyond(std::vector<double>{0.04, 0.05}, 0.05), 1.0) << "the larger one carries the smaller";
    EXPECT_EQ(share_beyond(std::vector<double>{0.5}, 0.05), 0.0);
    EXPECT_TRUE(std::isnan(share_beyond({}, 0.05)));
}

}  // namespace
