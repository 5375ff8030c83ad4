#include "derivations/significance.hpp"

#include <cmath>

#include "derivations/analysis.hpp"
#include "derivations/cosines.hpp"
#include "derivations/matching.hpp"
#include "derivations/null_models.hpp"

namespace geom {

namespace {

constexpr std::uint64_t null_seed = 3;
constexpr std::int64_t null_samples = 500;
constexpr double discovery_rate = 0.01;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

bool has_closed_forms(const Schema& schema) {
    return schema.find("gram/gram") >= 0 && schema.find("heads/fro_sq") >= 0;
}
bool has_matches(const Schema& schema) { return schema.find("match/assignment") >= 0; }

void emit_scalar(const DerivationContext& context, const char* name, double value) {
    emit_whole(context, name, std::vector<double>{value});
}

/// The two nulls in closed form, and the simulated one where spectra are steep.
class ClosedForms {
public:
    explicit ClosedForms(const DerivationContext& context)
        : context_(context),
          rows_(context.file),
          layers_(rows_.layers()),
          heads_(rows_.heads()),
          hidden_(static_cast<std::int64_t>(context.file.number_attribute("", "hidden"))) {
        read_spectra();
        read_invariants();
    }

    void compute() {
        std::vector<double> shared_tails;
        tails_.assign(at(layers_ * layers_ * heads_), not_a_number);
        for (std::int64_t l = 0; l < layers_; ++l) {
            const CosineRow row = rows_.cosines(l);
            emit_shared_basis(l, row, shared_tails);
            add_tails(l, row);
        }
        const auto simulated = simulated_tails(energies_, steep_, null_samples, null_seed);
        for (std::size_t i = 0; i < steep_.size(); ++i) {
            const std::int64_t l = steep_[i].left / heads_, other = steep_[i].right / heads_;
            set_tail(l, other, steep_[i].left % heads_, simulated[i]);
        }
        emit_whole(context_, "p_two_sided", tails_);
        emit_scalar(context_, "share_beyond_shared_basis", share_beyond(shared_tails, discovery_rate));
        emit_scalar(context_, "share_beyond_two_sided", share_beyond(tails_above_diagonal(), discovery_rate));
    }

private:
    void read_spectra() {
        const std::int64_t rank = context_.file.shape("heads/singular_values")[2];
        const auto values = context_.file.read("heads/singular_values");
        energies_ = energies_of(values, rank);
        for (std::int64_t i = 0; i < energies_.operators; ++i)
            participation_.push_back(participation_ratio(std::span(values).subspan(at(i * rank), at(rank))));
    }

    // Of each operator, from its eigenvalues: tr g is their sum.
    void read_invariants() {
        const std::int64_t rank = energies_.rank;
        const auto norms_sq = context_.file.read("heads/fro_sq"), asymmetry = context_.file.read("heads/asymmetry");
        for (std::int64_t l = 0; l < layers_; ++l) {
            const auto eigenvalues = context_.file.read("heads/eigvals_re", {l, 0, 0}, {1, heads_, rank});
            for (std::int64_t h = 0; h < heads_; ++h) {
                double trace = 0.0;
                for (const double value : std::span(eigenvalues).subspan(at(h * rank), at(rank)))
                    trace += std::isnan(value) ? 0.0 : value;
                const std::size_t i = at(l * heads_ + h);
                invariants_.push_back(invariants_of(trace, norms_sq[i], asymmetry[i], hidden_));
            }
        }
    }

    void emit_shared_basis(std::int64_t l, const CosineRow& row, std::vector<double>& tails) const {
        std::vector<double> z(row.cos.size(), not_a_number);
        for (std::int64_t i = 0; i < std::ssize(z); ++i) {
            const std::int64_t other = i / heads_;
            if (other == l) continue;
            const Null null = shared_basis_null(invariants_[at(l * heads_ + i % heads_)], invariants_[at(i)], hidden_);
            z[at(i)] = (row.cos[at(i)] - null.mean) / null.sd;
            if (other > l) tails.push_back(normal_tail(z[at(i)]));
        }
        context_.emit(make_slab(context_.schema, "analysis/z_shared", {l, 0, 0}, {1, layers_, heads_},
                                std::as_bytes(std::span(z))));
    }

    void add_tails(std::int64_t l, const CosineRow& row) {
        for (std::int64_t h = 0; h < heads_; ++h) {
            for (std::int64_t other = l + 1; other < layers_; ++other) {
                const std::int64_t left = l * heads_ + h, right = other * heads_ + h;
                const double z = row.cos[at(right)] * static_cast<double>(hidden_);
                if (std::isnan(z)) continue;
                if (participation_[at(left)] * participation_[at(right)] < steep_product) {
                    steep_.push_back({left, right, z});
                } else {
                    set_tail(l, other, h, normal_tail(z));
                }
            }
        }
    }

    void set_tail(std::int64_t l, std::int64_t other, std::int64_t h, double tail) {
        tails_[at((l * layers_ + other) * heads_ + h)] = tail;
        tails_[at((other * layers_ + l) * heads_ + h)] = tail;
    }

    std::vector<double> tails_above_diagonal() const {
        std::vector<double> above;
        for (std::int64_t l = 0; l < layers_; ++l) {
            above.insert(above.end(), tails_.begin() + (l * layers_ + l) * heads_,
                         tails_.begin() + (l + 1) * layers_ * heads_);
        }
        return above;
    }

    const DerivationContext& context_;
    GramRows rows_;
    std::int64_t layers_, heads_, hidden_;
    Energies energies_;
    std::vector<double> participation_;   // [L, H]
    std::vector<Invariants> invariants_;  // [L, H]
    std::vector<double> tails_;           // [L, L, H]
    std::vector<SteepPair> steep_;
};

/// What match knows of heads that have nothing to do with each other.
class Matches {
public:
    explicit Matches(const DerivationContext& context)
        : context_(context),
          cosines_(context.file),
          layers_(cosines_.layers()),
          heads_(cosines_.heads()),
          group_size_(static_cast<std::int64_t>(context.file.number_attribute("", "group_size"))),
          nulls_(at(layers_ * layers_)) {}

    void compute() {
        std::vector<double> same_layer, same_key;
        for (std::int64_t l = 0; l < layers_; ++l) {
            cosines_.read(l);
            add_same_layer(cosines_.with(l), same_layer, same_key);
            const auto matched = context_.file.read("match/assignment", {l, 0, 0}, {1, layers_, heads_});
            for (std::int64_t other = l + 1; other < layers_; ++other) {
                const auto to = std::span(matched).subspan(at(other * heads_), at(heads_));
                nulls_[at(l * layers_ + other)] = nulls_[at(other * layers_ + l)] =
                    empirical_null(cosines_.with(other), to, group_size_);
            }
        }
        emit_whole(context_, "same_layer_abs_cos", same_layer);
        emit_whole(context_, "same_layer_abs_cos_shared_key", same_key);
        emit_nulls();
        if (context_.schema.find("gram/gram") >= 0) emit_z();
    }

private:
    void add_same_layer(const std::vector<double>& cosines, std::vector<double>& other_key,
                        std::vector<double>& same_key) const {
        Mean apart, together;
        for (std::int64_t h = 0; h < heads_; ++h) {
            for (std::int64_t to = h + 1; to < heads_; ++to)
                (h / group_size_ == to / group_size_ ? together : apart).add(std::abs(cosines[at(h * heads_ + to)]));
        }
        other_key.push_back(apart.value());
        same_key.push_back(together.value());
    }

    void emit_nulls() const {
        std::vector<double> mean, sd, shared_mean, shared_sd;
        for (const EmpiricalNull& null : nulls_) {
            mean.push_back(null.other_keys.mean);
            sd.push_back(null.other_keys.sd);
            shared_mean.push_back(null.shared_keys.mean);
            shared_sd.push_back(null.shared_keys.sd);
        }
        emit_whole(context_, "empirical_mean", mean);
        emit_whole(context_, "empirical_sd", sd);
        emit_whole(context_, "empirical_mean_shared_key", shared_mean);
        emit_whole(context_, "empirical_sd_shared_key", shared_sd);
    }

    void emit_z() const {
        const GramRows rows(context_.file);
        std::vector<double> tails;
        for (std::int64_t l = 0; l < layers_; ++l) {
            std::vector<double> z = rows.cosines(l).cos;
            for (std::int64_t i = 0; i < std::ssize(z); ++i) {
                const Moments& null = nulls_[at(l * layers_ + i / heads_)].other_keys;  // NaN on the diagonal
                z[at(i)] = (z[at(i)] - null.mean) / null.sd;
                if (i / heads_ > l) tails.push_back(normal_tail(z[at(i)]));
            }
            context_.emit(make_slab(context_.schema, "analysis/z_empirical", {l, 0, 0}, {1, layers_, heads_},
                                    std::as_bytes(std::span(z))));
        }
        emit_scalar(context_, "share_beyond_empirical", share_beyond(tails, discovery_rate));
    }

    const DerivationContext& context_;
    CrossCosines cosines_;
    std::int64_t layers_, heads_, group_size_;
    std::vector<EmpiricalNull> nulls_;  // [L, L]
};

}  // namespace

EmpiricalNull empirical_null(std::span<const double> cosines, std::span<const double> matched,
                             std::int64_t group_size) {
    const std::int64_t heads = std::ssize(matched);
    std::vector<double> other_keys, shared_keys;
    for (std::int64_t h = 0; h < heads; ++h) {
        const auto with = static_cast<std::int64_t>(matched[at(h)]);
        for (std::int64_t to = 0; to < heads; ++to) {
            if (to == with) continue;
            (to / group_size == with / group_size ? shared_keys : other_keys).push_back(cosines[at(h * heads + to)]);
        }
    }
    return {moments_of(other_keys), moments_of(shared_keys)};
}

Schema declare_significance(const Schema& present) {
    Schema schema;
    const auto add = [&schema](const char* name, std::vector<std::string> dims, const char* long_name,
                               const char* missing) {
        schema.variables.push_back(analysis_variable(name, std::move(dims), long_name, missing));
    };
    const std::vector<std::string> pairs{"layer", "layer_b"}, cosines{"layer", "layer_b", "head"};
    const char* zero = "NaN where one of the operators is zero, and for a layer with itself";
    const char* no_pairs = "NaN where there is no pair of layers";
    if (has_closed_forms(present)) {
        add("z_shared", cosines,
            "cos less its mean, in standard deviations, under one random rotation of the residual basis", zero);
        add("p_two_sided", cosines,
            "p of |z_two_sided|: normal, or simulated where spectra are steep (product of participation ratios < 50)",
            zero);
        add("share_beyond_two_sided", {},
            "share of pairs of layers and heads beyond the two-sided null, Benjamini-Hochberg at 1%", no_pairs);
        add("share_beyond_shared_basis", {},
            "share of pairs of layers and heads beyond the shared-basis null, Benjamini-Hochberg at 1%", no_pairs);
    }
    if (has_matches(present)) {
        const char* no_others = "NaN for a layer with itself, and where all heads share a key head";
        const char* alone = "NaN for a layer with itself, and where no heads share a key head";
        add("empirical_mean", pairs, "mean cosine of heads that are not matched and whose key heads are not either",
            no_others);
        add("empirical_sd", pairs, "standard deviation of the same cosines", no_others);
        add("empirical_mean_shared_key", pairs, "mean cosine of heads that are not matched but whose key heads are",
            alone);
        add("empirical_sd_shared_key", pairs, "standard deviation of the same cosines", alone);
        add("same_layer_abs_cos", {"layer"}, "mean |cos| of two heads of the layer with different key heads",
            "NaN where all heads share a key head");
        add("same_layer_abs_cos_shared_key", {"layer"}, "mean |cos| of two heads of the layer that share a key head",
            "NaN where no heads share a key head");
    }
    if (has_matches(present) && present.find("gram/gram") >= 0) {
        add("z_empirical", cosines, "cos less empirical_mean, in units of empirical_sd",
            "NaN where one of the operators is zero, for a layer with itself, and where all heads share a key head");
        add("share_beyond_empirical", {},
            "share of pairs of layers and heads beyond the empirical null taken as normal, Benjamini-Hochberg at 1%",
            no_pairs);
    }
    return schema;
}

void compute_significance(const DerivationContext& context) {
    if (has_closed_forms(context.schema)) ClosedForms(context).compute();
    if (has_matches(context.schema)) Matches(context).compute();
}

}  // namespace geom
