#include "derivations/phases.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "derivations/small_matrix.hpp"
#include "derivations/statistics.hpp"

namespace geom {

namespace {

constexpr const char *directions = "residual/top_dirs", *rest = "residual/top_dirs_rest";
constexpr std::int64_t block_directions = 8;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Schema declare_phases(const Schema& present) {
    const std::int64_t index = present.find(directions);
    if (index < 0) return {};
    Schema schema;
    Scale layer_b = present.scale_of(present.variables[at(index)], "layer");
    layer_b.name = "layer_b";
    layer_b.long_name = "decoder layer, second of a pair";
    schema.scales.push_back(std::move(layer_b));
    const auto add = [&schema](const char* name, std::vector<std::string> dims, const char* long_name,
                               const char* missing) {
        schema.variables.push_back({"residual", name, std::move(dims), ValueType::f64, long_name, "1", missing});
    };
    const char* zero = "a layer adds nothing";
    add("top1_cos", {"layer", "layer_b"}, "|cos| of the first directions of two layers' steps", zero);
    add("subspace_overlap", {"layer", "layer_b"},
        "squared cosines of the leading directions, summed, over their number", "a layer's step has fewer directions");
    add("phase_intra_cos", {"phase"}, "mean top1_cos of pairs of layers of the phase", "a phase without pairs");
    add("phase_cross_cos", {"phase"}, "mean top1_cos of layers of the phase with others", "no layer outside");
    add("block_capture", {"layer"}, "share of the first direction within 8 directions of the phase's layers",
        "a phase of one layer");
    add("block_capture_others", {"layer"}, "the same, of the phase's other layers (by chance 8 / hidden)",
        "a phase of one layer");
    return schema;
}

/// Products of all layers' directions with one another.
class DirectionProducts {
public:
    explicit DirectionProducts(const ResultReader& file) {
        const auto shape = file.shape(directions);
        layers_ = shape[0];
        k_ = shape[1];
        products_.resize(at(layers_ * k_ * layers_ * k_));
        std::vector<std::vector<double>> rows;
        for (std::int64_t l = 0; l < layers_; ++l) {
            rows.push_back(file.read(directions, {l, 0, 0}, {1, k_, shape[2]}));
            const auto less = file.read(rest, {l, 0, 0}, {1, k_, shape[2]});
            for (std::size_t i = 0; i < less.size(); ++i) rows.back()[i] += less[i];
            for (std::int64_t other = 0; other <= l; ++other) multiply(rows[at(l)], rows[at(other)], l, other);
        }
    }

    std::int64_t layers() const { return layers_; }
    std::int64_t k() const { return k_; }
    /// Of direction a of layer l and direction b of another.
    double operator()(std::int64_t l, std::int64_t a, std::int64_t other, std::int64_t b) const {
        return products_[at(((l * k_ + a) * layers_ + other) * k_ + b)];
    }

private:
    void multiply(const std::vector<double>& left, const std::vector<double>& right, std::int64_t l,
                  std::int64_t other) {
        const std::int64_t hidden = std::ssize(left) / k_;
        for (std::int64_t a = 0; a < k_; ++a) {
            for (std::int64_t b = 0; b < k_; ++b) {
                double sum = 0.0;
                for (std::int64_t i = 0; i < hidden; ++i) sum += left[at(a * hidden + i)] * right[at(b * hidden + i)];
                products_[at(((l * k_ + a) * layers_ + other) * k_ + b)] = sum;
                products_[at(((other * k_ + b) * layers_ + l) * k_ + a)] = sum;
            }
        }
    }

    std::int64_t layers_ = 0, k_ = 0;
    std::vector<double> products_;  // [layers, k, layers, k]
};

/// The right singular vectors of a block of layers, as combinations of its rows: b_j = sum_i u_ji row_i / s_j.
class Block {
public:
    Block(const DirectionProducts& products, const std::vector<std::int64_t>& layers) : products_(products) {
        for (const std::int64_t l : layers) {
            for (std::int64_t a = 0; a < products.k(); ++a) {
                if (!std::isnan(products(l, a, l, a))) rows_.push_back({l, a});
            }
        }
        const auto n = std::ssize(rows_);
        std::vector<double> gram;
        for (const Row& one : rows_) {
            for (const Row& other : rows_)
                gram.push_back(products(one.layer, one.direction, other.layer, other.direction));
        }
        gram_ = gram;
        vectors_ = leading_eigenvectors_of(std::move(gram), n, std::min<std::int64_t>(block_directions, n));
    }

    /// sum_j (v_l . b_j)^2; NaN for a layer without a direction, or a block without any.
    double captures(std::int64_t layer) const {
        const auto n = std::ssize(rows_);
        if (n == 0 || std::isnan(products_(layer, 0, layer, 0))) return not_a_number;
        double sum = 0.0;
        for (std::int64_t j = 0; j * n < std::ssize(vectors_); ++j) {
            const double* u = vectors_.data() + j * n;
            double along = 0.0;
            for (std::int64_t i = 0; i < n; ++i)
                along += u[i] * products_(layer, 0, rows_[at(i)].layer, rows_[at(i)].direction);
            const double square = square_of(u);
            if (square > 1e-12) sum += along * along / square;  // a block of fewer directions
        }
        return sum;
    }

private:
    struct Row {
        std::int64_t layer, direction;
    };

    /// s_j^2 = u_j^T G u_j.
    double square_of(const double* u) const {
        const auto n = std::ssize(rows_);
        double square = 0.0;
        for (std::int64_t i = 0; i < n; ++i) {
            double row = 0.0;
            for (std::int64_t l = 0; l < n; ++l) row += gram_[at(i * n + l)] * u[l];
            square += u[i] * row;
        }
        return square;
    }

    const DirectionProducts& products_;
    std::vector<Row> rows_;
    std::vector<double> gram_, vectors_;
};

class PhaseGeometry {
public:
    explicit PhaseGeometry(const DerivationContext& context)
        : context_(context), products_(context.file), phase_of_(context.file.read("residual/layer_phase")) {}

    void compute() {
        emit_pairs();
        emit_phases();
        emit_captures();
    }

private:
    double top1(std::int64_t l, std::int64_t other) const { return std::abs(products_(l, 0, other, 0)); }

    void emit(const char* name, const std::vector<double>& numbers) const {
        context_.emit(whole_slab(context_.schema, std::string("residual/") + name, numbers));
    }

    void emit_pairs() const {
        const std::int64_t layers = products_.layers(), k = products_.k();
        std::vector<double> cosines, overlaps;
        for (std::int64_t l = 0; l < layers; ++l) {
            for (std::int64_t other = 0; other < layers; ++other) {
                double sum = 0.0;
                for (std::int64_t a = 0; a < k; ++a) {
                    for (std::int64_t b = 0; b < k; ++b) sum += products_(l, a, other, b) * products_(l, a, other, b);
                }
                cosines.push_back(top1(l, other));
                overlaps.push_back(sum / static_cast<double>(k));
            }
        }
        emit("top1_cos", cosines);
        emit("subspace_overlap", overlaps);
    }

    void emit_phases() const {
        const std::int64_t phases = context_.schema.shape_of(
            context_.schema.variables[at(context_.schema.index_of("residual/phase_intra_cos"))])[0];
        std::vector<Mean> inside(at(phases)), across(at(phases));
        for (std::int64_t l = 0; l < products_.layers(); ++l) {
            for (std::int64_t other = l + 1; other < products_.layers(); ++other) {
                const double cosine = top1(l, other);
                if (phase_of_[at(l)] == phase_of_[at(other)]) {
                    inside[phase(l)].add(cosine);
                } else {
                    across[phase(l)].add(cosine);
                    across[phase(other)].add(cosine);
                }
            }
        }
        const auto values = [](const std::vector<Mean>& means) {
            std::vector<double> out;
            for (const Mean& mean : means) out.push_back(mean.value());
            return out;
        };
        emit("phase_intra_cos", values(inside));
        emit("phase_cross_cos", values(across));
    }

    void emit_captures() const {
        std::vector<double> all(at(products_.layers()), not_a_number), others = all;
        for (std::int64_t l = 0; l < products_.layers(); ++l) {
            std::vector<std::int64_t> block = layers_of(phase_of_[at(l)]);
            if (block.size() < 2) continue;
            if (block.front() == l) {
                const Block whole(products_, block);
                for (const std::int64_t one : block) all[at(one)] = whole.captures(one);
            }
            std::erase(block, l);
            others[at(l)] = Block(products_, block).captures(l);
        }
        emit("block_capture", all);
        emit("block_capture_others", others);
    }

    std::size_t phase(std::int64_t layer) const { return static_cast<std::size_t>(phase_of_[at(layer)]); }

    std::vector<std::int64_t> layers_of(double phase) const {
        std::vector<std::int64_t> layers;
        for (std::int64_t l = 0; l < products_.layers(); ++l) {
            if (phase_of_[at(l)] == phase) layers.push_back(l);
        }
        return layers;
    }

    const DerivationContext& context_;
    DirectionProducts products_;
    std::vector<double> phase_of_;
};

void compute_phases(const DerivationContext& context) {
    if (context.schema.find("residual/top1_cos") >= 0) PhaseGeometry(context).compute();
}

}  // namespace

Derivation phases_derivation() { return {"phases", &declare_phases, &compute_phases}; }

}  // namespace geom
