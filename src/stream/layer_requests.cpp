#include "stream/layer_requests.hpp"

#include <algorithm>

namespace geom {

std::vector<LayerRequest> requests_of(const Plan& plan, const std::vector<Load>& loads, std::int64_t pass) {
    const ModelShape& shape = plan.input.shape;
    const auto heads = plan.heads_in_pass(pass), groups = plan.groups_in_pass(pass);
    std::vector<LayerRequest> requests;
    for (const Load& load : loads) {
        LayerRequest request;
        if (load.of != UnitOf::global) request.layer = shape.at(load.row).number;
        const auto add_whole = [&](std::int64_t expert) {
            for (const WeightFamily family : load.whole) {
                WeightRequest wanted{family, {}, expert};
                if (load.of == UnitOf::global) wanted.rows = {load.rows};
                wanted.repeated = std::binary_search(load.repeated.begin(), load.repeated.end(), family);
                request.weights.push_back(std::move(wanted));
            }
        };
        if (load.of == UnitOf::expert) {
            for (const std::int64_t expert : load.experts) add_whole(expert);
        } else {
            add_whole(-1);
        }
        if (load.of == UnitOf::layer && !load.experts.empty()) {
            for (const WeightShape& weight : shape.at(load.row).weights) {
                if (weight.expert >= 0) request.weights.push_back({weight.family, {}, weight.expert});
            }
        }
        const auto add_rows = [&](WeightFamily family, std::vector<Range> rows) {
            if (rows.empty() || std::find(load.whole.begin(), load.whole.end(), family) != load.whole.end()) return;
            request.weights.push_back({family, std::move(rows)});
        };
        if (load.heads) {
            add_rows(WeightFamily::q_proj, query_rows(shape, load.row, heads));
            add_rows(WeightFamily::k_proj, key_rows(shape, load.row, groups));
        }
        requests.push_back(std::move(request));
    }
    return requests;
}

}  // namespace geom
