#include "measures/heads_of_layer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "core/error.hpp"
#include "core/range.hpp"
#include "measures/spectrum.hpp"

namespace geom {

namespace {

constexpr double eps = std::numeric_limits<double>::epsilon();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Cholesky loses kappa(W)^2 eps: below this ratio of pivots W goes through QR.
constexpr double least_pivot_ratio = 1e-3;
/// The same for the stack [K; Q], whose blocks may differ in scale: the least angle between its rows counts.
constexpr double least_sine = 1e-2;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Memory of a layer's matrices, allocated once: on a GPU every allocation waits for everything under way. What was
/// taken last is given back first.
class Arena {
public:
    Arena(DenseBatch& dense, std::int64_t bytes) : memory_(dense.allocate(bytes)) {}

    double* take(std::int64_t doubles) {
        const std::int64_t begin = used_;
        used_ += rounded(doubles * 8);
        if (used_ > memory_.size()) throw Error(ExitCode::internal, "heads took more memory than heads_scratch says");
        return reinterpret_cast<double*>(memory_.data() + begin);
    }
    void give_back(std::int64_t doubles) noexcept { used_ -= rounded(doubles * 8); }

    static std::int64_t rounded(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

private:
    Buffer memory_;
    std::int64_t used_ = 0;
};

/// `count` matrices of one shape in the backend's memory.
class Matrices {
public:
    Matrices(Arena& arena, std::int64_t count, std::int64_t rows, std::int64_t cols)
        : all{{}, rows, cols, rows}, arena_(arena), doubles_(count * rows * cols) {
        double* memory = arena_.take(doubles_);
        for (std::int64_t i = 0; i < count; ++i) all.at.push_back(memory + i * rows * cols);
    }
    ~Matrices() { arena_.give_back(doubles_); }
    Matrices(const Matrices&) = delete;
    Matrices& operator=(const Matrices&) = delete;

    Batch all;

private:
    Arena& arena_;
    std::int64_t doubles_;
};

std::vector<MatrixRef> pick(std::span<const MatrixRef> from, std::span<const std::int64_t> indices) {
    std::vector<MatrixRef> some;
    some.reserve(indices.size());
    for (const std::int64_t i : indices) some.push_back(from[at(i)]);
    return some;
}

/// One of the two sides of g = W_K^T W_Q: its blocks and their factors W W^T = L L^T.
struct Side {
    std::span<const MatrixRef> blocks;
    Matrices lower;
    std::vector<bool> by_qr;
    std::vector<double> norm;  ///< ||W||_F

    Side(Arena& arena, std::span<const MatrixRef> w)
        : blocks(w), lower(arena, std::ssize(w), w[0].rows, w[0].rows), by_qr(w.size()), norm(w.size()) {}
};

/// Query heads [heads) of the layer and the key heads they use, from the weights to HeadsOfLayer.
class HeadsAtOnce {
public:
    HeadsAtOnce(DenseBatch& dense, Arena& arena, const LayerQK& weights, Range heads, HeadsOfLayer& out)
        : dense_(dense),
          arena_(arena),
          out_(out),
          layer_(weights.layer),
          first_(heads.begin),
          n_(out.head_dim),
          group_(std::ssize(weights.q) / std::ssize(weights.k)),
          q_(arena, weights.q.subspan(at(heads.begin), at(heads.size()))),
          k_(arena, weights.k.subspan(at(heads.begin / group_), at(heads.size() / group_))),
          grams_(arena, heads.size(), 2 * n_, 2 * n_) {
        for (std::int64_t h = 0; h < heads.size(); ++h) k_of_.push_back(h / group_);
    }

    void compute() {
        dense_.stacked_grams(pick(k_.blocks, k_of_), q_.blocks, grams_.all);
        factor(q_, grams_.all.block(n_, n_, n_, n_), "W_Q", first_);
        std::vector<std::int64_t> leaders;
        for (std::int64_t c = 0; c < std::ssize(k_.blocks); ++c) leaders.push_back(c * group_);
        factor(k_, grams_.all.block(0, 0, n_, n_).pick(leaders), "W_K", first_ / group_);
        const auto eigenvalues = start_general_eigenvalues();  // of finite numbers, as is known by now
        singular_values();
        symmetric_eigenvalues();
        eigenvalues->finish();
        finish_general_eigenvalues();
        dense_.workers().for_each(out_.directions > 0 ? heads() : 0,
                                  [this](std::int64_t h, int) { store_directions(h); });
    }

private:
    std::int64_t heads() const { return std::ssize(q_.blocks); }

    /// Cholesky, and QR where it lost too much.
    void factor(Side& side, const Batch& grams, const char* name, std::int64_t first) {
        std::vector<CholeskyReport> reports(side.blocks.size());
        dense_.cholesky(grams, side.lower.all, reports);
        std::vector<std::int64_t> poor;
        for (std::size_t i = 0; i < reports.size(); ++i) {
            const CholeskyReport& report = reports[i];
            if (!report.finite) {
                throw Error(ExitCode::numerics,
                            fmt::format("layer {}: {} of head {} holds NaN, infinity or numbers whose "
                                        "squares overflow: is the checkpoint damaged?",
                                        layer_, name, first + static_cast<std::int64_t>(i)));
            }
            side.norm[i] = std::sqrt(report.trace);
            side.by_qr[i] = !report.complete || report.min_pivot < least_pivot_ratio * report.max_pivot;
            if (side.by_qr[i]) poor.push_back(static_cast<std::int64_t>(i));
        }
        std::vector<double> sines(poor.size());
        dense_.qr_lower(pick(side.blocks, poor), {}, side.lower.all.pick(poor), sines);
    }

    /// s = svd(Lk^T Lq), and the leading pairs to directions.
    void singular_values() {
        const std::int64_t k = out_.directions;
        const Matrices u(arena_, heads(), n_, k), v(arena_, heads(), n_, k);
        const std::span<double> values(&out_.singular_values[at(first_ * n_)], at(heads() * n_));
        dense_.product_singular_values(k_.lower.all.pick(k_of_), q_.lower.all, values, u.all, v.all);
        for (std::int64_t h = 0; h < heads(); ++h) {
            const auto s = values.subspan(at(h * n_), at(n_));
            const double noise = static_cast<double>(n_) * eps;
            const bool cancelled = s[0] <= noise * k_.norm[at(k_of_[at(h)])] * q_.norm[at(h)];  // nothing of g is left
            const double least = cancelled ? s[0] : noise * s[0];
            std::replace_if(
                s.begin(), s.end(), [least](double value) { return value <= least; }, 0.0);
        }
        if (k == 0) return;
        std::vector<std::int64_t> own(at(heads()));
        std::iota(own.begin(), own.end(), 0);
        right_ = hidden_vectors(q_, own, v.all);
        left_ = hidden_vectors(k_, k_of_, u.all);
    }

    /// W^T L^-T z (D x k) of every head in host memory; through QR's orthonormal factor where L came from it.
    std::vector<double> hidden_vectors(const Side& side, std::span<const std::int64_t> block_of, const Batch& z) {
        const Matrices vectors(arena_, heads(), out_.hidden, out_.directions);
        std::vector<std::int64_t> good, poor, good_blocks, poor_blocks;
        for (std::int64_t h = 0; h < heads(); ++h) {
            const bool by_qr = side.by_qr[at(block_of[at(h)])];
            (by_qr ? poor : good).push_back(h);
            (by_qr ? poor_blocks : good_blocks).push_back(block_of[at(h)]);
        }
        dense_.solve_transposed(side.lower.all.pick(good_blocks), z.pick(good));
        dense_.combine_rows(pick(side.blocks, good_blocks), z.pick(good), vectors.all.pick(good));
        dense_.combine_orthonormal(pick(side.blocks, poor_blocks), z.pick(poor), vectors.all.pick(poor));
        std::vector<double> host(at(heads() * out_.directions * out_.hidden));
        dense_.read(vectors.all, host);
        return host;
    }

    void store_directions(std::int64_t h);
    void symmetric_eigenvalues();
    std::vector<double> factor_stacks(const Batch& lower);
    void finish_symmetric(std::int64_t h, double sine);
    std::unique_ptr<PendingResult> start_general_eigenvalues();
    void finish_general_eigenvalues();
    std::span<double> eigenvalues(std::vector<double>& parts) { return {&parts[at(first_ * n_)], at(heads() * n_)}; }

    DenseBatch& dense_;
    Arena& arena_;
    HeadsOfLayer& out_;
    std::int64_t layer_, first_, n_, group_;
    Side q_, k_;
    Matrices grams_;                    ///< [[Gk, .], [Q K^T, Gq]] of every head
    std::vector<std::int64_t> k_of_;    ///< head -> index into k_
    std::vector<double> right_, left_;  ///< heads x directions x D, of any length
};

void store_scaled(std::span<const double> vector, double factor, float* row) {
    for (const double x : vector) *row++ = static_cast<float>(x * factor);
}

double norm(std::span<const double> vector) {
    return std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0));
}

void HeadsAtOnce::store_directions(std::int64_t h) {
    const std::int64_t k = out_.directions, hidden = out_.hidden;
    for (std::int64_t j = 0; j < k; ++j) {
        const std::size_t row = at(((first_ + h) * k + j) * hidden);
        if (out_.singular_values[at((first_ + h) * n_ + j)] == 0) {
            std::fill_n(&out_.right_dirs[row], hidden, static_cast<float>(nan));
            std::fill_n(&out_.left_dirs[row], hidden, static_cast<float>(nan));
            continue;
        }
        const auto r = std::span<const double>(right_).subspan(at((h * k + j) * hidden), at(hidden));
        const auto l = std::span<const double>(left_).subspan(at((h * k + j) * hidden), at(hidden));
        const double sign = r[leading_entry(r)] < 0 ? -1.0 : 1.0;
        store_scaled(r, sign / norm(r), &out_.right_dirs[row]);
        store_scaled(l, sign / norm(l), &out_.left_dirs[row]);
    }
}

/// eig(L^T J L), X = [K; Q], X X^T = L L^T.
void HeadsAtOnce::symmetric_eigenvalues() {
    const std::int64_t order = 2 * n_;
    const Matrices lower(arena_, heads(), order, order), products(arena_, heads(), order, order);
    const std::vector<double> sines = factor_stacks(lower.all);
    dense_.exchange_products(lower.all, products.all, std::span(&out_.asymmetry[at(first_)], at(heads())));
    dense_.symmetric_eigenvalues(products.all, std::span(&out_.sym_eigs[at(first_ * order)], at(heads() * order)));
    for (std::int64_t h = 0; h < heads(); ++h) finish_symmetric(first_ + h, sines[at(h)]);
}

/// L of every head's stack [K; Q]: Cholesky, and QR where it lost too much. Returns the least sines.
std::vector<double> HeadsAtOnce::factor_stacks(const Batch& lower) {
    std::vector<CholeskyReport> reports(at(heads()));
    dense_.cholesky(grams_.all, lower, reports);
    std::vector<double> sines(at(heads()));
    std::vector<std::int64_t> poor, poor_k;
    for (std::int64_t h = 0; h < heads(); ++h) {
        sines[at(h)] = reports[at(h)].complete ? reports[at(h)].min_sine : 0.0;
        if (sines[at(h)] >= least_sine) continue;
        poor.push_back(h);
        poor_k.push_back(k_of_[at(h)]);
    }
    std::vector<double> poor_sines(poor.size());
    dense_.qr_lower(pick(k_.blocks, poor_k), pick(q_.blocks, poor), lower.pick(poor), poor_sines);
    for (std::size_t i = 0; i < poor.size(); ++i) sines[at(poor[i])] = poor_sines[i];
    return sines;
}

/// Order, signs and zeros. While the rows of [K; Q] are independent, hd eigenvalues are positive and hd negative
/// (Sylvester): none is dropped for being small. Else g + g^T has rank <= min(2 rank g, D), and small ones are
/// rounding.
void HeadsAtOnce::finish_symmetric(std::int64_t h, double sine) {
    const std::int64_t order = 2 * n_;
    const std::span<double> eigs(&out_.sym_eigs[at(h * order)], at(order));
    const auto s = std::span<const double>(out_.singular_values).subspan(at(h * n_), at(n_));
    const double rounding = static_cast<double>(order) * eps, noise = rounding * s[0];
    const bool independent = sine > rounding;
    if (independent) restore_inertia(eigs, 8 * noise);
    order_symmetric_eigenvalues(eigs, 8 * noise);
    std::int64_t rank = order;
    if (!independent) {
        rank = std::min(2 * std::count_if(s.begin(), s.end(), [](double x) { return x > 0; }), out_.hidden);
        while (rank > 0 && std::abs(eigs[at(rank - 1)]) <= noise) --rank;
    }
    std::fill(eigs.begin() + rank, eigs.end(), 0.0);
}

/// eig(Q K^T) = eig(K Q^T), transposed.
std::unique_ptr<PendingResult> HeadsAtOnce::start_general_eigenvalues() {
    return dense_.general_eigenvalues(grams_.all.block(n_, 0, n_, n_), eigenvalues(out_.eigvals_re),
                                      eigenvalues(out_.eigvals_im));
}

/// Values <= hd eps s_1 are 0, as are those beyond the rank D allows.
void HeadsAtOnce::finish_general_eigenvalues() {
    const std::span<double> re = eigenvalues(out_.eigvals_re), im = eigenvalues(out_.eigvals_im);
    for (std::int64_t h = 0; h < heads(); ++h) {
        const auto x = re.subspan(at(h * n_), at(n_)), y = im.subspan(at(h * n_), at(n_));
        const double noise = static_cast<double>(n_) * eps * out_.singular_values[at((first_ + h) * n_)];
        order_eigenvalues(x, y, 8 * noise);
        std::int64_t rank = noise > 0 ? std::min(n_, out_.hidden) : 0;
        while (rank > 0 && std::hypot(x[at(rank - 1)], y[at(rank - 1)]) <= noise) --rank;
        if (rank > 0 && y[at(rank - 1)] > 0) --rank;  // its conjugate is out
        std::fill(x.begin() + rank, x.end(), 0.0);
        std::fill(y.begin() + rank, y.end(), 0.0);
    }
}

/// The numbers of head h that follow from its spectra; asymmetry holds ||g - g^T|| on entry.
void fill_scalars(HeadsOfLayer& out, std::int64_t h) {
    const std::int64_t n = out.head_dim;
    const std::span<const double> s(&out.singular_values[at(h * n)], at(n));
    const SpectrumRanks ranks = ranks_of(s);
    const bool zero = s[0] == 0;
    out.fro_sq[at(h)] = ranks.energy;
    out.eff_rank[at(h)] = ranks.eff_rank;
    out.eff_rank_energy[at(h)] = ranks.eff_rank_energy;
    out.stable_rank[at(h)] = ranks.stable_rank;
    out.asymmetry[at(h)] = zero ? nan : out.asymmetry[at(h)] / std::sqrt(ranks.energy);

    double real = 0, magnitude = 0, positive = 0, all = 0;
    for (std::int64_t i = h * n; i < (h + 1) * n; ++i) {
        real += out.eigvals_re[at(i)];
        magnitude += std::hypot(out.eigvals_re[at(i)], out.eigvals_im[at(i)]);
    }
    for (std::int64_t i = h * 2 * n; i < (h + 1) * 2 * n; ++i) {
        const double square = out.sym_eigs[at(i)] * out.sym_eigs[at(i)];
        all += square;
        if (out.sym_eigs[at(i)] > 0) positive += square;
    }
    out.positivity[at(h)] = magnitude > 0 ? real / magnitude : nan;
    out.sym_positive_energy[at(h)] = all > 0 ? positive / all : nan;
}

/// The numbers of head h that have the size of g, as of the weights before they were scaled.
void scale_back(HeadsOfLayer& out, std::int64_t h, int exponent) {
    if (exponent == 0) return;
    const auto scale = [&](std::vector<double>& values, std::int64_t of_head, int power) {
        for (std::int64_t i = h * of_head; i < (h + 1) * of_head; ++i) values[at(i)] = std::ldexp(values[at(i)], power);
    };
    for (auto* values : {&out.singular_values, &out.eigvals_re, &out.eigvals_im})
        scale(*values, out.head_dim, exponent);
    scale(out.sym_eigs, 2 * out.head_dim, exponent);
    scale(out.fro_sq, 1, 2 * exponent);
}

void check_shapes(const LayerQK& weights) {
    const auto heads = weights.q.size(), kv = weights.k.size();
    if (heads == 0 || kv == 0 || heads % kv != 0) {
        throw Error(ExitCode::input, fmt::format("layer {}: {} query heads cannot be shared out over {} key heads",
                                                 weights.layer, heads, kv));
    }
    const MatrixRef& model = weights.q[0];
    for (const auto side : {weights.q, weights.k}) {
        for (const MatrixRef& w : side) {
            if (w.rows == model.rows && w.cols == model.cols && w.rows > 0 && w.cols > 0) continue;
            throw Error(ExitCode::input,
                        fmt::format("layer {}: a head's weights are {} x {} where {} x {} are expected", weights.layer,
                                    w.rows, w.cols, model.rows, model.cols));
        }
    }
}

HeadsOfLayer empty_heads(const LayerQK& weights, std::int64_t top_k) {
    HeadsOfLayer out;
    out.heads = std::ssize(weights.q);
    out.head_dim = weights.q[0].rows;
    out.hidden = weights.q[0].cols;
    out.directions = std::min(top_k, out.head_dim);
    for (auto* values : {&out.singular_values, &out.eigvals_re, &out.eigvals_im}) {
        values->resize(at(out.heads * out.head_dim));
    }
    out.sym_eigs.resize(at(out.heads * 2 * out.head_dim));
    for (auto* dirs : {&out.right_dirs, &out.left_dirs}) dirs->resize(at(out.heads * out.directions * out.hidden));
    for (auto* values : {&out.eff_rank, &out.eff_rank_energy, &out.stable_rank, &out.asymmetry, &out.positivity,
                         &out.sym_positive_energy, &out.fro_sq}) {
        values->resize(at(out.heads));
    }
    return out;
}

/// How many heads are held at once: whole key groups, so perhaps more than asked for.
std::int64_t step_of(std::int64_t heads, std::int64_t kv_heads, std::int64_t at_once) {
    const std::int64_t group = heads / kv_heads;
    return std::min(heads, std::max<std::int64_t>(1, at_once / group) * group);
}

}  // namespace

HeadsOfLayer heads_of_layer(DenseBatch& dense, const LayerQK& weights, std::int64_t top_k) {
    check_shapes(weights);
    HeadsOfLayer out = empty_heads(weights, top_k);
    const HeadsShape shape{out.heads, std::ssize(weights.k), out.head_dim, out.hidden, top_k};
    const std::int64_t step = step_of(out.heads, shape.kv_heads, dense.heads_at_once());
    Arena arena(dense, heads_scratch(dense, shape).working);
    for (std::int64_t h = 0; h < out.heads; h += step) {
        HeadsAtOnce(dense, arena, weights, {h, std::min(h + step, out.heads)}, out).compute();
    }
    const std::int64_t group = out.heads / std::ssize(weights.k);
    for (std::int64_t h = 0; h < out.heads; ++h) {
        fill_scalars(out, h);
        scale_back(out, h, weights.q[at(h)].exponent + weights.k[at(h / group)].exponent);
    }
    return out;
}

HeadsScratch heads_scratch(const DenseBatch& dense, const HeadsShape& shape) {
    // the factors of both sides and the grams; then the vectors, or the stacks' factors and products
    const std::int64_t n = shape.head_dim, k = std::min(shape.top_k, n);
    const std::int64_t step = step_of(shape.heads, shape.kv_heads, dense.heads_at_once());
    const auto matrices = [step](std::int64_t doubles) { return Arena::rounded(step * doubles * 8); };
    const std::int64_t factors = 2 * matrices(n * n) + matrices(4 * n * n);
    const std::int64_t stages = std::max(2 * matrices(n * k) + matrices(shape.hidden * k), 2 * matrices(4 * n * n));
    return {factors + stages, dense.scratch_bytes(step, n, shape.hidden, k), 2 * step * shape.hidden * k * 8};
}

}  // namespace geom
