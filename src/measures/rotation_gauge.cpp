#include "measures/rotation_gauge.hpp"

#include <cmath>
#include <vector>

#include "measures/neuron_matching.hpp"

namespace geom {

namespace {

constexpr std::array attention_families{WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj,
                                        WeightFamily::o_proj};
constexpr std::array mlp_families{WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj};

/// Rows that belong to block `block` of a family; columns of o_proj and down_proj.
TiedRows::Pair part_of(const LayerPair& pair, WeightFamily family, std::int64_t block, std::int64_t size) {
    const bool columns = family == WeightFamily::o_proj || family == WeightFamily::down_proj;
    const Range part{block * size, (block + 1) * size};
    const FamilyPair& both = pair.of(family);
    return {{both.a, part, columns}, {both.b, part, columns}};
}

// A query head and the key head it uses.
TiedRows head_of(const LayerPair& pair, std::int64_t head) {
    const PairShape& shape = pair.shape;
    const std::int64_t key = head / (shape.heads / shape.kv_heads);
    TiedRows set;
    for (const WeightFamily family : attention_families) {
        const bool of_query = family == WeightFamily::q_proj || family == WeightFamily::o_proj;
        set.pairs.push_back(part_of(pair, family, of_query ? head : key, shape.head_dim));
    }
    return set;
}

template <Turn turn>
void align_attention(const LayerPair& pair, Backend& backend, FamilyResiduals& out) {
    std::vector<TiedRows> heads;
    for (std::int64_t head = 0; head < pair.shape.heads; ++head) heads.push_back(head_of(pair, head));
    const std::vector<TurnedResiduals> found = backend.matrices().turned_residuals(heads, turn);
    for (std::size_t f = 0; f < attention_families.size(); ++f) {
        double sum = 0, open = 0;
        std::int64_t count = 0;
        for (const TurnedResiduals& head : found) {
            open += head.unique ? 0 : 1;
            if (std::isnan(head.residuals[f])) continue;
            sum += head.residuals[f];
            ++count;
        }
        if (count > 0) out.of(attention_families[f]) = sum / static_cast<double>(count);
        out.not_unique(attention_families[f]) = open / static_cast<double>(found.size());
    }
}

template <Turn turn>
void align_mlp(const LayerPair& pair, Backend& backend, FamilyResiduals& out) {
    TiedRows neurons;
    for (const WeightFamily family : mlp_families)
        neurons.pairs.push_back(part_of(pair, family, 0, pair.shape.intermediate));
    const TurnedResiduals found = backend.matrices().turned_residuals({&neurons, 1}, turn)[0];
    for (std::size_t f = 0; f < mlp_families.size(); ++f) {
        out.of(mlp_families[f]) = found.residuals[f];
        out.not_unique(mlp_families[f]) = found.unique ? 0 : 1;
    }
}

template <Turn turn>
std::int64_t attention_bytes(const PairShape& shape, Backend& backend) {
    return backend.matrices().turning_bytes(shape.heads, shape.head_dim, 4 * shape.hidden, turn);
}

template <Turn turn>
std::int64_t mlp_bytes(const PairShape& shape, Backend& backend) {
    return backend.matrices().turning_bytes(1, shape.intermediate, 3 * shape.hidden, turn);
}

// Six steps of the polar factor, each of a symmetric product, a Cholesky factor and two solves.
std::int64_t polar_flops(std::int64_t n) { return 21 * n * n * n; }

// A B^T and T A of four matrices.
std::int64_t attention_flops(const PairShape& shape) {
    const std::int64_t hd = shape.head_dim;
    return shape.heads * (16 * hd * hd * shape.hidden + polar_flops(hd));
}

// Of F x F; else Gram matrices of both sides, and the rest on what they span.
std::int64_t mlp_flops(const PairShape& shape) {
    const std::int64_t f = shape.intermediate, width = 3 * shape.hidden;
    if (f <= width) return 4 * f * f * width + polar_flops(f);
    return 2 * f * width * width + 3 * width * width * width + polar_flops(width);
}

template <Turn turn>
Gauge gauge_of(const char* name, bool folded) {
    Gauge gauge;
    gauge.name = name;
    gauge.folded = folded;
    gauge.attention = &align_attention<turn>;
    gauge.mlp = &align_mlp<turn>;
    gauge.attention_bytes = &attention_bytes<turn>;
    gauge.mlp_bytes = &mlp_bytes<turn>;
    if (turn == Turn::none) return gauge;
    gauge.attention_flops = &attention_flops;
    gauge.mlp_flops = &mlp_flops;
    return gauge;
}

}  // namespace

Gauge none_gauge() { return gauge_of<Turn::none>("none", false); }
Gauge none_folded_gauge() {
    Gauge gauge = gauge_of<Turn::none>("none_folded", true);
    gauge.mlp = &balanced_mlp;  // the scales of up and down are of the gauge function too
    gauge.mlp_bytes = &balanced_mlp_bytes;
    return gauge;
}
Gauge rotation_gauge() { return gauge_of<Turn::nearest>("rotation", false); }
Gauge backward_gauge() { return gauge_of<Turn::backward>("backward", false); }

}  // namespace geom
