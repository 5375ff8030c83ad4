#include "measures/legacy_heads.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/range.hpp"
#include "measures/spectrum.hpp"

namespace geom {

namespace {

constexpr const char* group_name = "legacy/heads";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Heads [heads) of the layer, all at once.
class LegacyHeadsAtOnce {
public:
    LegacyHeadsAtOnce(Backend& backend, const LayerQK& weights, Range heads, std::int64_t top_k)
        : backend_(backend),
          dense_(backend.dense()),
          heads_(heads),
          n_(weights.q[0].rows),
          hidden_(weights.q[0].cols),
          k_(std::min(top_k, n_)) {
        const std::int64_t group = std::ssize(weights.q) / std::ssize(weights.k);
        for (std::int64_t h = heads.begin; h < heads.end; ++h) {
            q_blocks_.push_back(weights.q[at(h)]);
            k_blocks_.push_back(weights.k[at(h / group)]);
        }
    }

    void compute(LegacyHeads& out) {
        symmetric_eigenvalues(out);
        upload_products();
        directions(out);
        products_->release();
    }

    /// Doubles of the backend's memory for one head, at most.
    static std::int64_t doubles(std::int64_t n, std::int64_t hidden, std::int64_t k) {
        return 8 * n * n + 2 * n * n + 3 * n * k + hidden * k;
    }

private:
    /// One matrix a head, in memory that goes with the Batch.
    struct Matrices {
        Buffer memory;
        Batch all;
    };
    Matrices matrices(std::int64_t rows, std::int64_t cols) {
        Matrices made{dense_.allocate(heads_.size() * rows * cols * 8), {{}, rows, cols, rows}};
        auto* memory = reinterpret_cast<double*>(made.memory.data());
        for (std::int64_t h = 0; h < heads_.size(); ++h) made.all.at.push_back(memory + h * rows * cols);
        return made;
    }

    // eig(L^T J L), [W_K; W_Q] [..]^T = L L^T.
    void symmetric_eigenvalues(LegacyHeads& out) {
        const Matrices lower = matrices(2 * n_, 2 * n_), products = matrices(2 * n_, 2 * n_);
        std::vector<double> sines(at(heads_.size())), asymmetry(at(heads_.size()));
        dense_.qr_lower(k_blocks_, q_blocks_, lower.all, sines);
        dense_.exchange_products(lower.all, products.all, asymmetry);
        const auto values = std::span(out.sym_eigs).subspan(at(heads_.begin * 2 * n_), at(heads_.size() * 2 * n_));
        dense_.symmetric_eigenvalues(products.all, values);
        for (std::int64_t h = 0; h < heads_.size(); ++h)
            order_symmetric_eigenvalues(values.subspan(at(h * 2 * n_), at(2 * n_)), 0.0);
    }

    // W_K W_Q^T of every head, row-major, and the identity after them: Q K^T, column-major, is the lower left block of
    // the stacks' Gram matrices.
    void upload_products() {
        const std::int64_t elements = n_ * n_;
        std::vector<double> host(at((heads_.size() + 1) * elements));
        {
            const Matrices grams = matrices(2 * n_, 2 * n_);
            dense_.stacked_grams(k_blocks_, q_blocks_, grams.all);
            dense_.read(grams.all.block(n_, 0, n_, n_), std::span(host).first(at(heads_.size() * elements)));
        }
        for (std::int64_t i = 0; i < n_; ++i) host[at(heads_.size() * elements + i * n_ + i)] = 1.0;
        products_ = backend_.input_buffer(std::ssize(host) * 8);
        products_->wait_sent();
        std::memcpy(products_->host(), host.data(), host.size() * 8);
        products_->send(std::ssize(host) * 8);
        products_->receive();
    }

    // W_K W_Q^T = L O^T by QR and L = U S V^T: the rows of V^T O^T W_Q.
    void directions(LegacyHeads& out) {
        std::vector<MatrixRef> products, identities;
        for (std::int64_t h = 0; h < heads_.size(); ++h) {
            products.push_back({products_->data() + h * n_ * n_ * 8, DType::f64, n_, n_});
            identities.push_back({products_->data() + heads_.size() * n_ * n_ * 8, DType::f64, n_, n_});
        }
        const Matrices lower = matrices(n_, n_), identity = matrices(n_, n_);
        const Matrices u = matrices(n_, k_), v = matrices(n_, k_), turned = matrices(n_, k_);
        std::vector<double> sines(products.size()), values(at(heads_.size() * n_));
        dense_.qr_lower(products, {}, lower.all, sines);
        dense_.qr_lower(identities, {}, identity.all, sines);
        dense_.product_singular_values(identity.all, lower.all, values, u.all, v.all);
        dense_.combine_orthonormal(products, v.all, turned.all);
        const Matrices rows = matrices(hidden_, k_);
        dense_.combine_rows(q_blocks_, turned.all, rows.all);
        std::vector<double> host(at(heads_.size() * k_ * hidden_));
        dense_.read(rows.all, host);
        for (std::int64_t h = 0; h < heads_.size(); ++h) {
            const auto s = std::span(values).subspan(at(h * n_), at(n_));
            out.fro_sq[at(heads_.begin + h)] = std::inner_product(s.begin(), s.end(), s.begin(), 0.0);
        }
        for (std::int64_t row = 0; row < heads_.size() * k_; ++row)
            store_unit(std::span(host).subspan(at(row * hidden_), at(hidden_)),
                       &out.eig_dirs[at((heads_.begin * k_ + row) * hidden_)]);
    }

    static void store_unit(std::span<const double> row, float* out) {
        const double norm = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
        const double leading =
            *std::max_element(row.begin(), row.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
        for (const double x : row) *out++ = static_cast<float>(x / std::copysign(norm, leading));
    }

    Backend& backend_;
    DenseBatch& dense_;
    Range heads_;
    std::int64_t n_, hidden_, k_;
    std::vector<MatrixRef> q_blocks_, k_blocks_;
    std::unique_ptr<InputBuffer> products_;
};

Needs legacy_needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.together = {{WeightFamily::q_proj, WeightFamily::k_proj}};
    return needs;
}

Schema declare_legacy(const ModelShape& shape) {
    const std::int64_t hd = shape.head_dim();
    Schema schema;
    schema.scales = {layer_scale(shape, group_name, "layer", shape.attention_rows()), head_scale(shape),
                     root_scale("direction", std::min(shape.settings.top_k, hd), "singular direction, largest first"),
                     root_scale("hidden", shape.hidden, "coordinate of the residual stream"),
                     root_scale("sym", 2 * hd, "eigenvalue of g + g^T, largest magnitude first")};
    schema.variables = {
        {group_name,
         "fro_sq",
         {"layer", "head"},
         ValueType::f64,
         "squared Frobenius norm of W_K W_Q^T (not of g = W_K^T W_Q), as in earlier scripts",
         "1",
         ""},
        {group_name,
         "eig_dirs",
         {"layer", "head", "direction", "hidden"},
         ValueType::f32,
         "unit rows of V^T W_Q with W_K W_Q^T = U S V^T (not singular vectors of g), as in earlier scripts",
         "1",
         "the row is zero"},
        {group_name,
         "sym_eigs",
         {"layer", "head", "sym"},
         ValueType::f64,
         "eigenvalues of g + g^T that can be non-zero, as in earlier scripts",
         "1",
         ""}};
    return schema;
}

std::vector<Unit> legacy_units(const ModelShape& shape) { return layer_units(group_name, shape.attention_rows()); }

std::int64_t heads_at_once(Backend& backend, const ModelShape& shape) {
    return std::min(shape.heads, backend.dense().heads_at_once());
}

// Of the longest heads.
MemoryNeed legacy_memory(const ModelShape& shape, Backend& backend) {
    const std::int64_t n = shape.head_dim(), k = std::min(shape.settings.top_k, n);
    const std::int64_t step = heads_at_once(backend, shape), input = (step + 1) * n * n * 8;
    MemoryNeed need;
    need.layer = step * LegacyHeadsAtOnce::doubles(n, shape.hidden, k) * 8 + (backend.on_device() ? input : 0);
    need.kept = backend.dense().scratch_bytes(step, n, shape.hidden, k);
    need.layer_host = 2 * input + step * shape.hidden * k * 8;
    return need;
}

void legacy_heads_of(const LayerVisit& visit, const MeasureContext& context) {
    const ModelShape& shape = context.shape;
    const LayerShape& layer = shape.at(visit.row);
    const std::int64_t n = layer.head_dim, k = std::min(shape.settings.top_k, n);
    const auto blocks = [&](WeightFamily family, std::int64_t count) {
        std::vector<MatrixRef> rows;
        for (std::int64_t h = 0; h < count; ++h) rows.push_back(visit.weights.head_block(family, {h * n, (h + 1) * n}));
        return rows;
    };
    const auto q = blocks(WeightFamily::q_proj, shape.heads), keys = blocks(WeightFamily::k_proj, layer.kv_heads);
    const LegacyHeads values = legacy_heads_of_layer(context.backend, {layer.number, q, keys}, shape.settings.top_k);
    const auto rows = shape.attention_rows();
    const std::int64_t place = std::lower_bound(rows.begin(), rows.end(), visit.row) - rows.begin();
    for (const Unit& unit : visit.units) {
        std::vector<Slab> slabs;
        slabs.push_back(make_slab(context.schema, "legacy/heads/fro_sq", {place, 0}, {1, shape.heads},
                                  std::as_bytes(std::span(values.fro_sq))));
        slabs.push_back(make_slab(context.schema, "legacy/heads/eig_dirs", {place, 0, 0, 0},
                                  {1, shape.heads, k, shape.hidden}, std::as_bytes(std::span(values.eig_dirs))));
        slabs.push_back(make_slab(context.schema, "legacy/heads/sym_eigs", {place, 0, 0}, {1, shape.heads, 2 * n},
                                  std::as_bytes(std::span(values.sym_eigs))));
        context.emit({unit, std::move(slabs)});
    }
}

MeasureWork start_legacy(const MeasureContext& context) {
    MeasureWork work;
    work.layer = [&context](const LayerVisit& visit) { legacy_heads_of(visit, context); };
    return work;
}

}  // namespace

LegacyHeads legacy_heads_of_layer(Backend& backend, const LayerQK& weights, std::int64_t top_k) {
    const std::int64_t heads = std::ssize(weights.q), n = weights.q[0].rows, k = std::min(top_k, n);
    LegacyHeads out{std::vector<double>(at(heads)), std::vector<float>(at(heads * k * weights.q[0].cols)),
                    std::vector<double>(at(heads * 2 * n))};
    const std::int64_t step = std::min(heads, backend.dense().heads_at_once());
    for (std::int64_t h = 0; h < heads; h += step)
        LegacyHeadsAtOnce(backend, weights, {h, std::min(h + step, heads)}, top_k).compute(out);
    const std::int64_t group = heads / std::ssize(weights.k);
    for (std::int64_t h = 0; h < heads; ++h) {
        const int exponent = weights.q[at(h)].exponent + weights.k[at(h / group)].exponent;
        out.fro_sq[at(h)] = std::ldexp(out.fro_sq[at(h)], 2 * exponent);
        for (double& value : std::span(out.sym_eigs).subspan(at(h * 2 * n), at(2 * n)))
            value = std::ldexp(value, exponent);
    }
    return out;
}

Measure legacy_heads_measure() {
    Measure measure;
    measure.name = group_name;
    measure.summary = "heads as earlier scripts defined them (with --legacy, beside heads)";
    measure.by_default = false;
    measure.needs = &legacy_needs;
    measure.declare = &declare_legacy;
    measure.units = &legacy_units;
    measure.memory = &legacy_memory;
    measure.start = &start_legacy;
    return measure;
}

}  // namespace geom
