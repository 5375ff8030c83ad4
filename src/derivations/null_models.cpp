#include "derivations/null_models.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/assignment.hpp"
#include "core/random.hpp"
#include "derivations/small_matrix.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// How many leading energies hold all but `rest` of the sum of their squares.
std::int64_t leading_energies(std::span<const double> shares, double rest) {
    double all = 0.0, sum = 0.0;
    for (const double share : shares) all += share * share;
    std::int64_t count = 0;
    while (count < std::ssize(shares) && sum < (1.0 - rest) * all) {
        sum += shares[at(count)] * shares[at(count)];
        ++count;
    }
    return count;
}

/// Points of the unit cube of four dimensions, evenly spread: multiples of powers of 1/x with x^5 = x + 1, from a
/// random place (Kronecker's sequence with Roberts's constants, shifted as Cranley and Patterson 1976).
class SpreadNumbers {
public:
    explicit SpreadNumbers(RandomNumbers& random) {
        for (double& coordinate : point_) coordinate = random.uniform();
    }
    void next() {
        double step = 1.0;
        for (double& coordinate : point_) {
            step /= 1.1673039782614187;
            coordinate += step;
            coordinate -= std::floor(coordinate);
        }
    }
    double at(std::int64_t i) const { return std::max(point_[static_cast<std::size_t>(i)], 0x1p-53); }

private:
    std::array<double, 4> point_{};
};

/// One drawing of a after the other for all pairs.
class SteepSimulation {
public:
    SteepSimulation(const Energies& energies, std::uint64_t seed)
        : energies_(energies), random_(seed), squares_(at(energies.rank * energies.rank)), column_(at(energies.rank)) {
        for (std::int64_t i = 0; i < energies.operators; ++i) {
            kept_.push_back(leading_energies(shares(i), 5e-4));
            double mass = 0.0;
            for (std::int64_t j = 0; j < kept_.back(); ++j) mass += shares(i)[at(j)];
            mass_.push_back(mass);
        }
    }

    void add_sample(std::span<const SteepPair> pairs, std::vector<double>& sums) {
        for (double& square : squares_) {
            const double a = random_.normal();
            square = a * a;
        }
        spread_.next();
        for (std::int64_t i = 0; i < std::min<std::int64_t>(2, energies_.rank); ++i) {
            const auto a = normal_pair(spread_.at(2 * i), spread_.at(2 * i + 1));
            for (std::int64_t j = 0; j < std::min<std::int64_t>(2, energies_.rank); ++j)
                squares_[at(i * energies_.rank + j)] = a[at(j)] * a[at(j)];
        }
        std::int64_t left = -1;
        for (std::size_t p = 0; p < pairs.size(); ++p) {
            if (pairs[p].left != left) start_left(left = pairs[p].left);
            const double variance = variance_with(left, pairs[p].right);
            sums[p] += std::erfc(std::abs(pairs[p].z) / std::sqrt(2.0 * variance));
        }
    }

private:
    std::span<const double> shares(std::int64_t i) const {
        return std::span(energies_.shares).subspan(at(i * energies_.rank), at(energies_.rank));
    }

    // column_[j] = sum over i of w_i a_ij^2
    void start_left(std::int64_t left) {
        std::fill(column_.begin(), column_.end(), 0.0);
        for (std::int64_t i = 0; i < kept_[at(left)]; ++i) {
            const double share = shares(left)[at(i)];
            const double* row = squares_.data() + i * energies_.rank;
            for (std::int64_t j = 0; j < energies_.rank; ++j) column_[at(j)] += share * row[j];
        }
    }

    double variance_with(std::int64_t left, std::int64_t right) const {
        double variance = 1.0 - mass_[at(left)] * mass_[at(right)];  // the mean of what is left out
        for (std::int64_t j = 0; j < kept_[at(right)]; ++j) variance += shares(right)[at(j)] * column_[at(j)];
        return variance;
    }

    const Energies& energies_;
    RandomNumbers random_;
    SpreadNumbers spread_{random_};  // for the largest terms, which p depends on most
    std::vector<double> squares_, column_;
    std::vector<std::int64_t> kept_;
    std::vector<double> mass_;  // sum of the energies kept
};

// chi^2_m / m.
double mean_square(RandomNumbers& random, std::int64_t m) {
    double sum = 0.0;
    for (std::int64_t left = m / 2; left > 0; left -= 16) {  // a logarithm for 16 factors: too few to underflow
        double product = 1.0;
        for (std::int64_t i = 0; i < std::min<std::int64_t>(left, 16); ++i) product *= random.uniform();
        sum -= 2.0 * std::log(product);
    }
    if (m % 2 != 0) {
        const double last = random.normal();
        sum += last * last;
    }
    return sum / static_cast<double>(m);
}

constexpr std::array<std::int64_t, 6> simulated_freedoms{0, 16, 8, 4, 2, 1};  // 0: infinitely many

// Signs of the eigenvalues of g + g^T by descending magnitude, those of R^T J R with [W_K; W_Q] [..]^T = R R^T Wishart:
// R by Bartlett's decomposition (1933), without the D columns.
std::vector<double> random_signs(RandomNumbers& random, std::int64_t head_dim, std::int64_t hidden) {
    const std::int64_t n = 2 * head_dim;
    std::vector<double> r(at(n * n)), product(at(n * n));
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < std::min(i, hidden); ++j) r[at(i * n + j)] = random.normal();
        const std::int64_t freedoms = hidden - i;
        if (freedoms > 0) r[at(i * n + i)] = std::sqrt(mean_square(random, freedoms) * static_cast<double>(freedoms));
    }
    // R^T J R = K^T Q + Q^T K with the rows K, Q of R
    for (std::int64_t i = 0; i < head_dim; ++i) {
        const double *k = r.data() + i * n, *q = r.data() + (head_dim + i) * n;
        for (std::int64_t a = 0; a < n; ++a) {
            for (std::int64_t b = 0; b < n; ++b) product[at(a * n + b)] += k[a] * q[b] + q[a] * k[b];
        }
    }
    std::vector<double> signs = symmetric_eigenvalues_of(std::move(product), n);
    for (double& value : signs) value = value > 0.0 ? 1.0 : -1.0;
    return signs;
}

}  // namespace

double normal_tail(double z) { return std::erfc(std::abs(z) / std::sqrt(2.0)); }

double participation_ratio(std::span<const double> singular_values) {
    const double largest = singular_values.empty() ? 0.0 : singular_values[0];
    if (!(largest > 0.0)) return not_a_number;
    double sum = 0.0, squares = 0.0;
    for (const double value : singular_values) {
        if (std::isnan(value)) continue;
        const double energy = value / largest * (value / largest);
        sum += energy;
        squares += energy * energy;
    }
    return sum * sum / squares;
}

Invariants invariants_of(double trace, double norm_sq, double asymmetry, std::int64_t hidden) {
    Invariants of;
    of.trace = trace / std::sqrt(norm_sq);
    of.antisymmetric = asymmetry * asymmetry / 4.0;
    of.symmetric = std::max(0.0, 1.0 - of.antisymmetric - of.trace * of.trace / static_cast<double>(hidden));
    if (std::isnan(asymmetry)) of.symmetric = not_a_number;
    return of;
}

Null shared_basis_null(const Invariants& left, const Invariants& right, std::int64_t hidden) {
    const auto d = static_cast<double>(hidden);
    const double symmetric = left.symmetric * right.symmetric / ((d - 1.0) * (d + 2.0) / 2.0);
    const double antisymmetric = left.antisymmetric * right.antisymmetric / (d * (d - 1.0) / 2.0);
    return {left.trace * right.trace / d, std::sqrt(symmetric + antisymmetric)};
}

Energies energies_of(std::span<const double> singular_values, std::int64_t rank) {
    Energies energies{rank > 0 ? std::ssize(singular_values) / rank : 0, rank, {}};
    for (std::int64_t i = 0; i < energies.operators; ++i) {
        const auto values = singular_values.subspan(at(i * rank), at(rank));
        double sum = 0.0;
        const auto energy = [&](double value) {
            return std::isnan(value) || !(values[0] > 0.0) ? 0.0 : value / values[0] * (value / values[0]);
        };
        for (const double value : values) sum += energy(value);
        for (const double value : values) energies.shares.push_back(sum > 0.0 ? energy(value) / sum : 0.0);
    }
    return energies;
}

std::vector<double> simulated_tails(const Energies& energies, std::span<const SteepPair> pairs, std::int64_t samples,
                                    std::uint64_t seed) {
    std::vector<double> sums(pairs.size());
    if (pairs.empty()) return sums;
    SteepSimulation simulation(energies, seed);
    for (std::int64_t sample = 0; sample < samples; ++sample) simulation.add_sample(pairs, sums);
    for (double& sum : sums) sum /= static_cast<double>(samples);
    return sums;
}

MatchedNull::MatchedNull(std::int64_t heads, std::int64_t group_size, std::uint64_t seed) {
    const std::int64_t samples = std::max<std::int64_t>(64, 8192 / std::max<std::int64_t>(1, heads));
    RandomNumbers random(seed);
    std::vector<double> sizes(at(heads * heads));
    for (const std::int64_t freedoms : simulated_freedoms) {
        Mean mean;
        for (std::int64_t sample = 0; sample < samples; ++sample) {
            for (double& size : sizes) {
                const double z = random.normal();
                size = std::abs(freedoms == 0 ? z : z * std::sqrt(mean_square(random, freedoms)));
            }
            const auto column_of = nested_assignment(sizes, heads, group_size);
            for (std::int64_t h = 0; h < heads; ++h) mean.add(sizes[at(h * heads + column_of[at(h)])]);
        }
        at_.push_back(mean.value());
    }
}

double MatchedNull::mean_abs_z(double steepness) const {
    const auto steepness_of = [](std::size_t i) {
        return simulated_freedoms[i] == 0 ? 0.0 : 1.0 / static_cast<double>(simulated_freedoms[i]);
    };
    std::size_t above = 1;
    while (above + 1 < at_.size() && steepness_of(above) < steepness) ++above;
    const double low = steepness_of(above - 1), high = steepness_of(above);
    const double share = (std::clamp(steepness, low, high) - low) / (high - low);
    return at_[above - 1] + share * (at_[above] - at_[above - 1]);
}

std::vector<double> sign_agreement_sd(std::int64_t head_dim, std::int64_t hidden, std::span<const std::int32_t> leading,
                                      std::uint64_t seed) {
    const std::int64_t n = 2 * head_dim;
    const std::int64_t heads = std::clamp<std::int64_t>((std::int64_t{1} << 28) / (n * n * n + 1), 8, 64);
    RandomNumbers random(seed);
    std::vector<std::vector<double>> signs;
    for (std::int64_t h = 0; h < heads; ++h) signs.push_back(random_signs(random, head_dim, hidden));
    std::vector<double> deviations;
    for (const std::int32_t k : leading) {
        Mean square;
        for (std::size_t a = 0; a < signs.size(); ++a) {
            for (std::size_t b = a + 1; b < signs.size(); ++b) {
                double sum = 0.0;  // agreements less disagreements
                for (std::int64_t i = 0; i < k; ++i) sum += signs[a][at(i)] * signs[b][at(i)];
                const double off = sum / (2.0 * k);
                square.add(off * off);
            }
        }
        deviations.push_back(std::sqrt(square.value()));
    }
    return deviations;
}

double share_beyond(std::span<const double> p, double level) {
    std::vector<double> rising;
    std::copy_if(p.begin(), p.end(), std::back_inserter(rising), [](double value) { return !std::isnan(value); });
    if (rising.empty()) return not_a_number;
    std::sort(rising.begin(), rising.end());
    const auto count = static_cast<double>(rising.size());
    for (std::size_t k = rising.size(); k > 0; --k) {
        if (rising[k - 1] <= level * static_cast<double>(k) / count) return static_cast<double>(k) / count;
    }
    return 0.0;
}

}  // namespace geom
