#include "measures/function_gauge.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numeric>
#include <vector>

#include "core/error.hpp"
#include "kernels/weight_vectors.hpp"
#include "measures/head_alignment.hpp"
#include "measures/neuron_matching.hpp"

namespace geom {

namespace {

constexpr std::int64_t searches_at_once = 64;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Mean of numbers but NaN; NaN of none.
double mean_of(const std::vector<double>& numbers) {
    double sum = 0.0;
    std::int64_t count = 0;
    for (const double number : numbers) {
        if (std::isnan(number)) continue;
        sum += number;
        ++count;
    }
    return sum / static_cast<double>(count);
}

/// Factors of a matrix's rows, or of o's columns, that give every head's part unit norm; 0 where it is zero. Throws
/// Error(numerics) for NaN and infinity.
std::vector<double> head_factors(const WeightVectors& vectors, std::int64_t head_dim, Workers& workers) {
    std::vector<double> factors(at(vectors.count()));
    squared_norms(workers, vectors, factors);
    for (std::int64_t head = 0; head < vectors.count(); head += head_dim) {
        double square = 0.0;
        for (std::int64_t i = head; i < head + head_dim; ++i) square += factors[at(i)];
        if (!std::isfinite(square))
            throw Error(ExitCode::numerics,
                        "attention weights hold NaN, infinity, or numbers whose squares are beyond fp64");
        std::fill_n(factors.begin() + head, head_dim, square > 0 ? 1.0 / std::sqrt(square) : 0.0);
    }
    return factors;
}

/// Whether the weights of a norm are the same in both rows of plane p, in every head they are for.
bool even_weights(const FoldedMatrix& norm, std::int64_t head_dim, std::int64_t p) {
    if (norm.stored.data == nullptr) return true;
    const std::int64_t size = size_of(norm.stored.dtype);
    for (std::int64_t i = p; i + head_dim / 2 < norm.stored.cols; i += head_dim) {
        const std::byte* one = norm.stored.data + i * size;
        if (!std::equal(one, one + size, one + head_dim / 2 * size)) return false;
    }
    return true;
}

/// Rows of q or k of both layers, and factors that give every head unit norm.
struct HeadRows {
    WeightVectors a, b;
    std::vector<double> of_a, of_b;

    HeadRows(const FamilyPair& both, std::int64_t head_dim, Workers& workers)
        : a{both.a}, b{both.b}, of_a(head_factors(a, head_dim, workers)), of_b(head_factors(b, head_dim, workers)) {}
};

/// The attention of both layers.
class Attention {
public:
    Attention(const LayerPair& pair, Backend& backend)
        : pair_(pair),
          shape_(pair.shape),
          backend_(backend),
          workers_(backend.workers()),
          q_(pair.of(WeightFamily::q_proj), shape_.head_dim, workers_),
          k_(pair.of(WeightFamily::k_proj), shape_.head_dim, workers_) {}

    void align() {
        similar_.heads = shape_.heads;
        similar_.kv_heads = shape_.kv_heads;
        similar_.head_dim = shape_.head_dim;
        for (std::int64_t p = 0; p < shape_.head_dim / 2; ++p) {
            similar_.phases.push_back(even_weights(pair_.of(WeightFamily::q_norm).a, shape_.head_dim, p) &&
                                      even_weights(pair_.of(WeightFamily::k_norm).a, shape_.head_dim, p));
        }
        similar_.q = planes(q_);
        similar_.k = planes(k_);
        similar_.o = blocks(WeightFamily::o_proj, true);
        similar_.v = blocks(WeightFamily::v_proj, false);
        const auto polar = [this](std::span<double> matrices, std::span<double> norms) {
            polar_factors(workers_, matrices, shape_.head_dim, norms);
        };
        head_of_ = align_heads(similar_, polar, searches_at_once).head_of;
        for (std::int64_t c = 0; c < shape_.kv_heads; ++c) key_head_of_.push_back(head_of_[at(c * group())] / group());
    }

    void set(FamilyResiduals& residuals) const {
        const auto turns = best_turns();
        residuals.of(WeightFamily::q_proj) = mean_of(turned(q_, turns, head_of_));
        residuals.of(WeightFamily::k_proj) = mean_of(turned(k_, turns, key_head_of_));
        set_values(residuals);
    }

private:
    std::int64_t group() const { return shape_.heads / shape_.kv_heads; }

    /// [heads of a, heads of b, hd/2]: with rows x + i y of a and of b, sum over columns of (x + iy) times conjugate.
    std::vector<std::complex<double>> planes(const HeadRows& rows) const {
        const std::int64_t half = shape_.head_dim / 2, heads = rows.a.count() / shape_.head_dim, n = 2 * heads;
        std::vector<double> dots(at(half * n * n));
        strided_products(workers_, rows.a.matrix, rows.b.matrix, half, dots);
        std::vector<std::complex<double>> out;
        out.reserve(at(heads * heads * half));
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t to = 0; to < heads; ++to) {
                const double factor = rows.of_a[at(h * 2 * half)] * rows.of_b[at(to * 2 * half)];
                for (std::int64_t p = 0; p < half; ++p) {
                    const double* x = dots.data() + (p * n + 2 * h) * n + 2 * to;  // x of a with x and y of b
                    const double* y = x + n;
                    out.emplace_back(factor * (x[0] + y[1]), factor * (y[0] - x[1]));
                }
            }
        }
        return out;
    }

    std::vector<float> blocks(WeightFamily family, bool columns) const {
        const WeightVectors a{pair_.of(family).a, columns}, b{pair_.of(family).b, columns};
        const auto of_a = head_factors(a, shape_.head_dim, workers_), of_b = head_factors(b, shape_.head_dim, workers_);
        std::vector<float> out(at(a.count() * b.count()));
        const std::array<VectorProducts, 1> products{{{a, b, of_a, of_b}}};
        similarities(workers_, products, {}, out);
        return out;
    }

    /// [KV, hd/2] of the matched heads.
    std::vector<std::complex<double>> best_turns() const {
        std::vector<std::complex<double>> turns;
        const std::int64_t half = shape_.head_dim / 2;
        for (std::int64_t c = 0; c < shape_.kv_heads; ++c) {
            for (std::int64_t p = 0; p < half; ++p) {
                std::complex<double> z = similar_.k[at((c * shape_.kv_heads + key_head_of_[at(c)]) * half + p)];
                for (std::int64_t h = c * group(); h < (c + 1) * group(); ++h)
                    z += similar_.q[at((h * shape_.heads + head_of_[at(h)]) * half + p)];
                turns.push_back(best_turn(z, similar_.phases[at(p)]));
            }
        }
        return turns;
    }

    /// ||t a - b|| of every head of q or k, with b's head `head_of`; NaN where one is zero.
    std::vector<double> turned(const HeadRows& rows, const std::vector<std::complex<double>>& turns,
                               const std::vector<std::int64_t>& head_of) const {
        const std::int64_t hd = shape_.head_dim, half = hd / 2, heads = std::ssize(head_of);
        std::vector<Combination> combinations;
        for (std::int64_t h = 0; h < heads; ++h) {
            const std::int64_t c = h / (heads / shape_.kv_heads), to = head_of[at(h)];
            const double of_b = rows.of_b[at(to * hd)];
            for (std::int64_t p = 0; p < half; ++p) {
                const std::complex<double> turn = turns[at(c * half + p)] * rows.of_a[at(h * hd)];
                const std::int64_t x = h * hd + p, y = x + half, other = to * hd + p;
                combinations.push_back({x, y, other, turn.real(), -turn.imag(), of_b});
                combinations.push_back({x, y, other + half, turn.imag(), turn.real(), of_b});
            }
        }
        std::vector<double> squares(combinations.size()), out;
        squared_combinations(workers_, rows.a, rows.b, combinations, squares);
        for (std::int64_t h = 0; h < heads; ++h) {
            const bool defined = rows.of_a[at(h * hd)] > 0 && rows.of_b[at(head_of[at(h)] * hd)] > 0;
            const double sum = std::accumulate(squares.begin() + h * hd, squares.begin() + (h + 1) * hd, 0.0);
            out.push_back(defined ? std::sqrt(sum) : std::numeric_limits<double>::quiet_NaN());
        }
        return out;
    }

    // The orthogonal matrix of each key head, and what it leaves, is the backend's to find.
    void set_values(FamilyResiduals& residuals) const {
        const FamilyPair &v = pair_.of(WeightFamily::v_proj), &o = pair_.of(WeightFamily::o_proj);
        const auto part = [this](std::int64_t head) {
            return Range{head * shape_.head_dim, (head + 1) * shape_.head_dim};
        };
        std::vector<TiedRows> sets;
        for (std::int64_t c = 0; c < shape_.kv_heads; ++c) {
            TiedRows& tied = sets.emplace_back();
            tied.pairs.push_back({{v.a, part(c), false}, {v.b, part(key_head_of_[at(c)]), false}});
            for (std::int64_t h = c * group(); h < (c + 1) * group(); ++h)
                tied.pairs.push_back({{o.a, part(h), true}, {o.b, part(head_of_[at(h)]), true}});
        }
        std::vector<double> of_v, of_o;
        double open = 0.0;
        for (const TurnedResiduals& found : backend_.matrices().turned_residuals(sets, Turn::nearest)) {
            open += found.unique ? 0.0 : 1.0 / static_cast<double>(shape_.kv_heads);
            of_v.push_back(found.residuals.front());
            of_o.insert(of_o.end(), found.residuals.begin() + 1, found.residuals.end());
        }
        residuals.of(WeightFamily::v_proj) = mean_of(of_v);
        residuals.of(WeightFamily::o_proj) = mean_of(of_o);
        residuals.not_unique(WeightFamily::v_proj) = residuals.not_unique(WeightFamily::o_proj) = open;
    }

    const LayerPair& pair_;
    const PairShape& shape_;
    Backend& backend_;
    Workers& workers_;
    HeadRows q_, k_;
    HeadSimilarities similar_;
    std::vector<std::int64_t> head_of_, key_head_of_;  // of a's heads: b's
};

}  // namespace

void aligned_attention(const LayerPair& pair, Backend& backend, FamilyResiduals& residuals) {
    if (pair.shape.head_dim % 2 != 0) return;
    Attention attention(pair, backend);
    attention.align();
    attention.set(residuals);
}

std::int64_t aligned_attention_bytes(const PairShape& shape, Backend& backend) {
    const Workers& workers = backend.workers();
    const std::int64_t hd = shape.head_dim, kv = shape.kv_heads, rows = shape.heads * hd, of_values = kv * hd;
    const std::int64_t planes = hd / 2 * (shape.heads * shape.heads + kv * kv) * 16;
    const std::int64_t dots = hd / 2 * 4 * shape.heads * shape.heads * 8;
    const std::int64_t blocks = 4 * (rows * rows + of_values * of_values);
    const std::int64_t factors = 8 * 2 * (rows + of_values), combinations = rows * (sizeof(Combination) + 8);
    const std::int64_t matrices = 8 * searches_at_once * hd * hd;
    const WeightVectors of_o{{{nullptr, DType::f64, shape.hidden, rows}}, true};
    const std::int64_t scratch =
        std::max({strided_products_bytes(workers, rows, hd / 2) + dots, similarities_bytes(workers) + 16 * rows,
                  polar_factors_bytes(workers, hd) + matrices, squared_combinations_bytes(workers, of_o) + combinations,
                  backend.matrices().turning_bytes(kv, hd, (shape.heads / kv + 1) * shape.hidden, Turn::nearest)});
    return planes + blocks + factors + scratch;
}

namespace {

// Products in f32, twice as quick; decompositions of what key heads may be to key heads, four of each (measured: hd =
// 128).
std::int64_t attention_flops(const PairShape& shape) {
    const std::int64_t rows = shape.heads * shape.head_dim, of_values = shape.kv_heads * shape.head_dim;
    constexpr std::int64_t decomposition = 120;
    return (rows * rows + of_values * of_values) * shape.hidden +
           4 * decomposition * of_values * of_values * shape.head_dim;
}

// Products in f32; the assignment, which one thread finds.
std::int64_t mlp_flops(const PairShape& shape) {
    constexpr std::int64_t assignment = 2000;
    return shape.intermediate * shape.intermediate * (3 * shape.hidden + assignment);
}

}  // namespace

Gauge function_gauge() {
    Gauge gauge;
    gauge.name = "function";
    gauge.folded = true;
    gauge.attention = &aligned_attention;
    gauge.mlp = &matched_mlp;
    gauge.attention_bytes = &aligned_attention_bytes;
    gauge.mlp_bytes = &matched_mlp_bytes;
    gauge.attention_flops = &attention_flops;
    gauge.mlp_flops = &mlp_flops;
    return gauge;
}

}  // namespace geom
