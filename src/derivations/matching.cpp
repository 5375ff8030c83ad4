#include "derivations/matching.hpp"

#include <cmath>
#include <numeric>

#include "core/assignment.hpp"
#include "derivations/null_models.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr std::uint64_t null_seed = 1;
constexpr const char* cross_gram = "match/cross_gram";
constexpr const char* single_layer = "NaN for a single layer";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Schema declare_matching(const Schema& present) {
    if (present.find(cross_gram) < 0) return {};
    Schema schema;
    const auto add = [&schema](const char* name, std::vector<std::string> dims, ValueType type, const char* long_name,
                               const char* missing) {
        schema.variables.push_back({"match", name, std::move(dims), type, long_name, "1", missing});
    };
    add("assignment", {"layer", "layer_b", "head"}, ValueType::i32,
        "head of layer_b that this head of layer is matched with: largest sum of |cos|, key heads kept together", "");
    add("matched_cos", {"layer", "layer_b", "head"}, ValueType::f64, "cosine with the matched head",
        "NaN where one of the operators is zero");
    add("matched_null", {"layer", "layer_b"}, ValueType::f64,
        "mean |cos| of matched heads when nothing relates the layers: simulated under the two-sided null",
        "NaN for a layer with itself");
    add("matched_excess", {"layer", "layer_b"}, ValueType::f64, "mean |matched_cos| over heads less matched_null",
        "NaN for a layer with itself, and where every head has a zero operator in one of the layers");
    add("mean_matched_cos", {}, ValueType::f64, "mean |matched_cos| over heads and pairs of layers", single_layer);
    add("mean_matched_null", {}, ValueType::f64, "mean matched_null over pairs of layers", single_layer);
    add("share_moved", {}, ValueType::f64,
        "share of heads, over pairs of layers, that are matched with a head of another number", single_layer);
    return schema;
}

/// Both directions of every pair of layers; the second is the inverse of the first.
class Matching {
public:
    explicit Matching(const DerivationContext& context)
        : context_(context),
          cosines_(context.file),
          layers_(cosines_.layers()),
          heads_(cosines_.heads()),
          group_size_(static_cast<std::int64_t>(context.file.number_attribute("", "group_size"))),
          assignment_(at(layers_ * layers_ * heads_)),
          matched_(assignment_.size()) {}

    void compute() {
        for (std::int64_t l = 0; l < layers_; ++l) {
            cosines_.read(l);
            match_with_itself(l);
            for (std::int64_t other = l + 1; other < layers_; ++other) match(l, other);
        }
        context_.emit(whole_slab(context_.schema, "match/assignment", assignment_));
        context_.emit(whole_slab(context_.schema, "match/matched_cos", matched_));
        emit_excess();
    }

private:
    std::size_t place(std::int64_t l, std::int64_t other, std::int64_t h) const {
        return at((l * layers_ + other) * heads_ + h);
    }

    // No assignment has a larger sum than each head with itself.
    void match_with_itself(std::int64_t l) {
        const auto cosines = cosines_.with(l);
        for (std::int64_t h = 0; h < heads_; ++h) {
            assignment_[place(l, l, h)] = static_cast<std::int32_t>(h);
            matched_[place(l, l, h)] = cosines[at(h * heads_ + h)];
        }
    }

    void match(std::int64_t l, std::int64_t other) {
        const auto cosines = cosines_.with(other);
        const auto column_of = match_heads(cosines, heads_, group_size_);
        for (std::int64_t h = 0; h < heads_; ++h) {
            const std::int64_t to = column_of[at(h)];
            assignment_[place(l, other, h)] = static_cast<std::int32_t>(to);
            assignment_[place(other, l, to)] = static_cast<std::int32_t>(h);
            matched_[place(l, other, h)] = matched_[place(other, l, to)] = cosines[at(h * heads_ + to)];
        }
    }

    // [L] means over heads of 1/PR; 0, as if spectra were flat, where group heads is not there.
    std::vector<double> steepness() const {
        std::vector<double> of_layer(at(layers_), 0.0);
        if (!context_.file.has("heads/singular_values")) return of_layer;
        const std::int64_t rank = context_.file.shape("heads/singular_values")[2];
        for (std::int64_t l = 0; l < layers_; ++l) {
            const auto values = context_.file.read("heads/singular_values", {l, 0, 0}, {1, heads_, rank});
            Mean mean;
            for (std::int64_t h = 0; h < heads_; ++h)
                mean.add(1.0 / participation_ratio(std::span(values).subspan(at(h * rank), at(rank))));
            if (mean.count() > 0) of_layer[at(l)] = mean.value();
        }
        return of_layer;
    }

    void emit_excess() {
        const MatchedNull null_model(heads_, group_size_, null_seed);
        const auto steep = steepness();
        const double hidden = context_.file.number_attribute("", "hidden");
        std::vector<double> nulls, excess;
        Mean sizes, chances, moved;
        for (std::int64_t l = 0; l < layers_; ++l) {
            for (std::int64_t other = 0; other < layers_; ++other) {
                Mean size;
                for (std::int64_t h = 0; h < heads_; ++h) {
                    size.add(std::abs(matched_[place(l, other, h)]));
                    if (l < other) moved.add(assignment_[place(l, other, h)] == h ? 0.0 : 1.0);
                }
                const double chance = null_model.mean_abs_z(steep[at(l)] * steep[at(other)]) / hidden;
                nulls.push_back(l == other ? not_a_number : chance);
                excess.push_back(size.value() - nulls.back());
                if (l >= other) continue;
                sizes.add(size.value());
                chances.add(chance);
            }
        }
        context_.emit(whole_slab(context_.schema, "match/matched_null", nulls));
        context_.emit(whole_slab(context_.schema, "match/matched_excess", excess));
        emit("match/mean_matched_cos", sizes);
        emit("match/mean_matched_null", chances);
        emit("match/share_moved", moved);
    }

    void emit(const char* path, const Mean& mean) const {
        context_.emit(whole_slab(context_.schema, path, std::vector<double>{mean.value()}));
    }

    const DerivationContext& context_;
    CrossCosines cosines_;
    std::int64_t layers_, heads_, group_size_;
    std::vector<std::int32_t> assignment_;  // [L, L, H]
    std::vector<double> matched_;
};

void compute_matching(const DerivationContext& context) { Matching(context).compute(); }

}  // namespace

CrossCosines::CrossCosines(const ResultReader& file)
    : file_(file), layers_(file.shape(cross_gram)[0]), heads_(file.shape(cross_gram)[1]) {
    for (std::int64_t l = 0; l < layers_; ++l) {
        const auto box = file.read(cross_gram, {l, 0, l, 0}, {1, heads_, 1, heads_});
        for (std::int64_t h = 0; h < heads_; ++h) norms_.push_back(std::sqrt(box[at(h * heads_ + h)]));
    }
}

void CrossCosines::read(std::int64_t layer) {
    rows_ = file_.read(cross_gram, {layer, 0, 0, 0}, {1, heads_, layers_, heads_});
    layer_ = layer;
}

std::vector<double> CrossCosines::with(std::int64_t other) const {
    std::vector<double> cosines;
    cosines.reserve(at(heads_ * heads_));
    for (std::int64_t h = 0; h < heads_; ++h) {
        for (std::int64_t to = 0; to < heads_; ++to) {
            const double both = norms_[at(layer_ * heads_ + h)] * norms_[at(other * heads_ + to)];
            const double product = rows_[at((h * layers_ + other) * heads_ + to)];
            cosines.push_back(both > 0.0 ? product / both : not_a_number);
        }
    }
    return cosines;
}

std::vector<std::int64_t> match_heads(std::span<const double> cosines, std::int64_t heads, std::int64_t group_size) {
    std::vector<double> sizes;
    sizes.reserve(cosines.size());
    for (const double cosine : cosines) sizes.push_back(std::isnan(cosine) ? 0.0 : std::abs(cosine));
    return nested_assignment(sizes, heads, group_size);
}

Derivation matching_derivation() { return {"matching", &declare_matching, &compute_matching}; }

}  // namespace geom
