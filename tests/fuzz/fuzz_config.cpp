// config.json: any bytes are an Error(input) or sizes from which every shape can be computed without overflow.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "checkpoint/families.hpp"
#include "checkpoint/model_config.hpp"
#include "core/error.hpp"

namespace {

void demand(bool rule) {
    if (!rule) std::abort();
}

void check(const geom::ModelConfig& config) {
    demand(config.layers > 0 && config.heads > 0 && config.kv_heads > 0 && config.heads % config.kv_heads == 0);
    demand(config.head_dim > 0 && config.hidden > 0 && config.intermediate > 0 && config.vocabulary > 0);
    demand(config.norm_eps > 0 && config.rope.theta > 0);
    for (const geom::ModelFamily& family : geom::model_families()) {
        for (int i = 0; i < geom::weight_family_count; ++i) {
            const auto weight = static_cast<geom::WeightFamily>(i);
            for (const std::int64_t expert : {std::int64_t{-1}, config.moe.experts - 1}) {
                if (!geom::has_weight(family, config, weight, config.layers - 1, expert)) continue;
                const geom::MatrixShape shape = geom::shape_of(config, weight, expert);
                demand(shape.rows > 0 && shape.cols > 0);
                const auto place = geom::place_of(family, config, weight, config.layers - 1, expert);
                demand(!place.tensor.empty() && (!place.rows || place.rows->size() == shape.rows));
            }
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        check(geom::parse_model_config({reinterpret_cast<const char*>(data), size}, "fuzz"));
    } catch (const geom::Error& error) {
        demand(error.code() == geom::ExitCode::input && *error.what() != '\0');
    }
    return 0;
}
