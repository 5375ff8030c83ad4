#include "measures/neuron_matching.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/large_assignment.hpp"
#include "kernels/weight_vectors.hpp"

namespace geom {

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<double> norms_of(const WeightVectors& vectors, Workers& workers) {
    std::vector<double> norms(at(vectors.count()));
    squared_norms(workers, vectors, norms);
    for (double& norm : norms) norm = std::sqrt(norm);
    return norms;
}

/// 1 / ||numbers||, or 0; NaN where there are such, or infinity.
double inverse_norm(const std::vector<double>& numbers) {
    double square = 0.0;
    for (const double number : numbers) square += number * number;
    if (!std::isfinite(square)) return not_a_number;
    return square > 0 ? 1.0 / std::sqrt(square) : 0.0;
}

/// The neurons of both layers as vectors, with the factors that make them comparable.
class Neurons {
public:
    Neurons(const LayerPair& pair, Workers& workers)
        : pair_(pair),
          workers_(workers),
          a_(factors(&FamilyPair::a)),
          b_(factors(&FamilyPair::b)),
          sign_(a_.gate.size(), 1.0),
          neuron_(a_.gate.size()) {
        std::iota(neuron_.begin(), neuron_.end(), 0);
    }

    void match() {
        check_finite();
        const std::int64_t n = pair_.shape.intermediate;
        std::vector<float> values(at(n * n));
        const std::array<VectorProducts, 1> gate{products(WeightFamily::gate_proj)};
        const std::array<VectorProducts, 2> other{products(WeightFamily::up_proj), products(WeightFamily::down_proj)};
        similarities(workers_, gate, other, values);
        workers_.for_each(1, [&](std::int64_t, int) { assign(values); });  // the caller's thread stays awake
        set_signs();
    }

    void set(FamilyResiduals& residuals) const {
        for (const WeightFamily family : {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj}) {
            const auto squares = differences(family);
            const bool defined = inverse_norm(of(a_, family)) > 0 && inverse_norm(of(b_, family)) > 0;
            const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
            residuals.of(family) = defined ? std::sqrt(sum) : not_a_number;
        }
    }

private:
    NeuronFactors factors(FoldedMatrix FamilyPair::*layer) const {
        return balanced_neurons(pair_.of(WeightFamily::gate_proj).*layer, pair_.of(WeightFamily::up_proj).*layer,
                                pair_.of(WeightFamily::down_proj).*layer, workers_);
    }

    // Values are of unit vectors: what rounding leaves open is far below this.
    void assign(const std::vector<float>& values) {
        constexpr double closed = 1e-9;
        LargeAssignment best = best_large_assignment(values, pair_.shape.intermediate);
        if (std::abs(best.gap) > closed) {
            throw Error(ExitCode::internal, fmt::format("the assignment of neurons to those of layer {} is open by {}",
                                                        pair_.layer, best.gap));
        }
        neuron_ = std::move(best.column_of);
    }

    void check_finite() const {
        for (const WeightFamily family : {WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj}) {
            const VectorProducts both = products(family);
            const double sum = std::accumulate(both.a_factor.begin(), both.a_factor.end(), 0.0) +
                               std::accumulate(both.b_factor.begin(), both.b_factor.end(), 0.0);
            if (std::isfinite(sum)) continue;
            throw Error(
                ExitCode::numerics,
                fmt::format(
                    "{} of layer {} or the one before it holds NaN, infinity, or numbers whose squares are beyond fp64",
                    name_of(family), pair_.layer));
        }
    }

    static const std::vector<double>& of(const NeuronFactors& factors, WeightFamily family) {
        if (family == WeightFamily::gate_proj) return factors.gate;
        return family == WeightFamily::up_proj ? factors.up : factors.down;
    }

    VectorProducts products(WeightFamily family) const {
        const FamilyPair& both = pair_.of(family);
        const bool columns = family == WeightFamily::down_proj;
        return {{both.a, columns}, {both.b, columns}, of(a_, family), of(b_, family)};
    }

    /// ||sign factor a_i - factor b_pi(i)||^2 of every neuron.
    std::vector<double> differences(WeightFamily family) const {
        const VectorProducts both = products(family);
        std::vector<Combination> combinations;
        for (std::int64_t i = 0; i < pair_.shape.intermediate; ++i) {
            const double sign = family == WeightFamily::gate_proj ? 1.0 : sign_[at(i)];
            const std::int64_t to = neuron_[at(i)];
            combinations.push_back({i, i, to, sign * both.a_factor[at(i)], 0.0, both.b_factor[at(to)]});
        }
        std::vector<double> squares(combinations.size());
        squared_combinations(workers_, both.a, both.b, combinations, squares);
        return squares;
    }

    // ||u - u'||^2 + ||d - d'||^2 = ||u||^2 + ||u'||^2 + ||d||^2 + ||d'||^2 - 2 (<u, u'> + <d, d'>).
    void set_signs() {
        const auto up = differences(WeightFamily::up_proj), down = differences(WeightFamily::down_proj);
        std::vector<double> squares(at(pair_.shape.intermediate));
        const auto add = [&](WeightFamily family) {
            const VectorProducts both = products(family);
            std::vector<double> of_a(squares.size()), of_b(squares.size());
            squared_norms(workers_, both.a, of_a);
            squared_norms(workers_, both.b, of_b);
            for (std::size_t i = 0; i < squares.size(); ++i) {
                const std::size_t to = at(neuron_[i]);
                squares[i] +=
                    both.a_factor[i] * both.a_factor[i] * of_a[i] + both.b_factor[to] * both.b_factor[to] * of_b[to];
            }
        };
        add(WeightFamily::up_proj);
        add(WeightFamily::down_proj);
        for (std::size_t i = 0; i < squares.size(); ++i) sign_[i] = up[i] + down[i] > squares[i] ? -1.0 : 1.0;
    }

    const LayerPair& pair_;
    Workers& workers_;
    NeuronFactors a_, b_;
    std::vector<double> sign_;          // of a's neuron
    std::vector<std::int32_t> neuron_;  // of a's neuron: b's
};

}  // namespace

NeuronFactors balanced_neurons(const FoldedMatrix& gate, const FoldedMatrix& up, const FoldedMatrix& down,
                               Workers& workers) {
    NeuronFactors factors{norms_of({gate}, workers), norms_of({up}, workers), norms_of({down, true}, workers)};
    std::vector<double> balanced;  // ||u_i|| = ||d_i||
    for (std::size_t i = 0; i < factors.up.size(); ++i) balanced.push_back(std::sqrt(factors.up[i] * factors.down[i]));
    const double of_gate = inverse_norm(factors.gate), of_both = inverse_norm(balanced);
    for (std::size_t i = 0; i < balanced.size(); ++i) {
        factors.gate[i] = of_gate;
        const double norm_up = factors.up[i], norm_down = factors.down[i];
        factors.up[i] = norm_up > 0 ? of_both * balanced[i] / norm_up : 0.0;
        factors.down[i] = norm_down > 0 ? of_both * balanced[i] / norm_down : 0.0;
    }
    return factors;
}

void balanced_mlp(const LayerPair& pair, Backend& backend, FamilyResiduals& residuals) {
    Neurons(pair, backend.workers()).set(residuals);
}

void matched_mlp(const LayerPair& pair, Backend& backend, FamilyResiduals& residuals) {
    Neurons neurons(pair, backend.workers());
    neurons.match();
    neurons.set(residuals);
}

std::int64_t balanced_mlp_bytes(const PairShape& shape, Backend& backend) {
    constexpr std::int64_t numbers = 6 + 2, combination = sizeof(Combination) + 8;
    const std::int64_t n = shape.intermediate;
    const WeightVectors down{{{nullptr, DType::f64, shape.hidden, n}}, true},
        gate{{{nullptr, DType::f64, n, shape.hidden}}};
    return n * (numbers * 8 + combination) + std::max(squared_combinations_bytes(backend.workers(), down),
                                                      squared_combinations_bytes(backend.workers(), gate));
}

std::int64_t matched_mlp_bytes(const PairShape& shape, Backend& backend) {
    const std::int64_t n = shape.intermediate;
    const std::int64_t search = 4 * n * n + std::max(similarities_bytes(backend.workers()), assignment_bytes(n));
    return search + balanced_mlp_bytes(shape, backend) + 8 * 5 * n;
}

}  // namespace geom
