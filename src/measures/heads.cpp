#include "measures/heads.hpp"

#include <algorithm>
#include <string>

namespace geom {

std::vector<Variable> heads_variables() {
    const std::vector<std::string> values{"layer", "head", "rank"}, dirs{"layer", "head", "direction", "hidden"},
        scalars{"layer", "head"};
    const std::string zero = "the head's operator is zero", g = "g = W_K^T W_Q";
    const auto f64 = ValueType::f64;
    const auto f32 = ValueType::f32;
    const auto variable = [](const char* name, const std::vector<std::string>& dims, ValueType type,
                             const std::string& long_name, const std::string& missing) {
        return Variable{"heads", name, dims, type, long_name, "1", missing};
    };
    return {
        variable("singular_values", values, f64, "singular values of " + g + ", descending; 0 beyond the rank", ""),
        variable("eigvals_re", values, f64, "real parts of the eigenvalues of g that can be non-zero", ""),
        variable("eigvals_im", values, f64, "imaginary parts of the eigenvalues of g that can be non-zero", ""),
        variable("sym_eigs", {"layer", "head", "sym"}, f64, "eigenvalues of g + g^T that can be non-zero", ""),
        variable("right_dirs", dirs, f32, "leading right singular vectors of g (what queries read)",
                 "the singular value is zero"),
        variable("left_dirs", dirs, f32, "leading left singular vectors of g (what keys read)",
                 "the singular value is zero"),
        variable("eff_rank", scalars, f64, "effective rank: exp of the entropy of s / sum s", zero),
        variable("eff_rank_energy", scalars, f64, "effective rank of the energy: exp of the entropy of s^2 / sum s^2",
                 zero),
        variable("stable_rank", scalars, f64, "stable rank: sum s^2 / s_1^2", zero),
        variable("asymmetry", scalars, f64, "||g - g^T|| / ||g||", zero),
        variable("positivity", scalars, f64, "sum of the eigenvalues' real parts over the sum of their magnitudes",
                 "all eigenvalues of g are zero"),
        variable("sym_positive_energy", scalars, f64, "share of the positive eigenvalues in the energy of g + g^T",
                 "g + g^T is zero"),
        variable("fro_sq", scalars, f64, "squared Frobenius norm of g: sum s^2", ""),
    };
}

std::vector<Slab> heads_slabs(const Schema& schema, std::int64_t layer, const HeadsOfLayer& values) {
    const std::int64_t heads = values.heads, n = values.head_dim;
    std::vector<Slab> slabs;
    const auto add = [&](const char* name, std::vector<std::int64_t> shape, const auto& numbers) {
        std::vector<std::int64_t> start(shape.size() + 1, 0);
        start[0] = layer;
        shape.insert(shape.begin(), 1);
        slabs.push_back(make_slab(schema, std::string("heads/") + name, std::move(start), std::move(shape),
                                  std::as_bytes(std::span(numbers))));
    };
    add("singular_values", {heads, n}, values.singular_values);
    add("eigvals_re", {heads, n}, values.eigvals_re);
    add("eigvals_im", {heads, n}, values.eigvals_im);
    add("sym_eigs", {heads, 2 * n}, values.sym_eigs);
    if (values.directions > 0) {
        add("right_dirs", {heads, values.directions, values.hidden}, values.right_dirs);
        add("left_dirs", {heads, values.directions, values.hidden}, values.left_dirs);
    }
    add("eff_rank", {heads}, values.eff_rank);
    add("eff_rank_energy", {heads}, values.eff_rank_energy);
    add("stable_rank", {heads}, values.stable_rank);
    add("asymmetry", {heads}, values.asymmetry);
    add("positivity", {heads}, values.positivity);
    add("sym_positive_energy", {heads}, values.sym_positive_energy);
    add("fro_sq", {heads}, values.fro_sq);
    return slabs;
}

namespace {

const std::vector<WeightFamily> query_and_key{WeightFamily::q_proj, WeightFamily::k_proj};

Needs heads_needs(const ModelShape& /*shape*/) {
    Needs needs;
    needs.together = {query_and_key};
    return needs;
}

Schema declare_heads(const ModelShape& shape) {
    const std::int64_t hd = shape.head_dim();
    Schema schema{{layer_scale(shape, "heads", "layer", shape.attention_rows()), head_scale(shape),
                   root_scale("direction", std::min(shape.settings.top_k, hd), "singular direction, largest first"),
                   root_scale("hidden", shape.hidden, "coordinate of the residual stream"),
                   root_scale("rank", hd, "singular value or eigenvalue, largest first"),
                   root_scale("sym", 2 * hd, "eigenvalue of g + g^T, largest magnitude first")},
                  heads_variables()};
    if (shape.settings.top_k > 0) return schema;
    const auto of_directions = [](const Variable& v) { return v.name == "right_dirs" || v.name == "left_dirs"; };
    std::erase_if(schema.variables, of_directions);
    std::erase_if(schema.scales, [](const Scale& s) { return s.name == "direction" || s.name == "hidden"; });
    return schema;
}

std::vector<Unit> heads_units(const ModelShape& shape) { return layer_units("heads", shape.attention_rows()); }

// Of the layer that takes most.
MemoryNeed heads_memory(const ModelShape& shape, Backend& backend) {
    MemoryNeed need;
    for (const std::int64_t row : shape.attention_rows()) {
        const LayerShape& layer = shape.at(row);
        const HeadsScratch scratch = heads_scratch(
            backend.dense(), {shape.heads, layer.kv_heads, layer.head_dim, shape.hidden, shape.settings.top_k});
        need.layer = std::max(need.layer, scratch.working);
        need.kept = std::max(need.kept, scratch.kept);
        need.layer_host = std::max(need.layer_host, scratch.host);
    }
    return need;
}

// A head: its Gram matrices, and factorisations and eigenvalues that take as long as `dense` hd^3 in a large product
// (measured: hd = 128).
Work heads_work(const ModelShape& shape, std::span<const Unit> units) {
    constexpr std::int64_t dense = 260;
    Work work;
    for (const Unit& unit : units) {
        const std::int64_t hd = shape.at(unit.first).head_dim;
        work.fp64 += shape.heads * (4 * hd * hd * shape.hidden + dense * hd * hd * hd);
    }
    return work;
}

void heads_of(const LayerVisit& visit, const MeasureContext& context) {
    const ModelShape& shape = context.shape;
    const LayerShape& layer = shape.at(visit.row);
    const auto blocks = [&](WeightFamily family, std::int64_t count) {
        std::vector<MatrixRef> rows;
        for (std::int64_t h = 0; h < count; ++h)
            rows.push_back(visit.weights.head_block(family, {h * layer.head_dim, (h + 1) * layer.head_dim}));
        return rows;
    };
    const auto q = blocks(WeightFamily::q_proj, shape.heads), k = blocks(WeightFamily::k_proj, layer.kv_heads);
    const HeadsOfLayer values = heads_of_layer(context.backend.dense(), {layer.number, q, k}, shape.settings.top_k);
    const auto rows = shape.attention_rows();
    const std::int64_t place = std::lower_bound(rows.begin(), rows.end(), visit.row) - rows.begin();
    for (const Unit& unit : visit.units) context.emit({unit, heads_slabs(context.schema, place, values)});
}

MeasureWork start_heads(const MeasureContext& context) {
    MeasureWork work;
    work.layer = [&context](const LayerVisit& visit) { heads_of(visit, context); };
    return work;
}

}  // namespace

Measure heads_measure() {
    Measure measure;
    measure.name = "heads";
    measure.summary = "each head's operator: singular values and directions, eigenvalues, effective ranks, asymmetry";
    measure.needs = &heads_needs;
    measure.declare = &declare_heads;
    measure.units = &heads_units;
    measure.memory = &heads_memory;
    measure.work = &heads_work;
    measure.start = &start_heads;
    return measure;
}

}  // namespace geom
