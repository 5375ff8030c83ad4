#include "app/plan_object.hpp"

#include <nlohmann/json.hpp>

#include "app/describe.hpp"

namespace geom {

using nlohmann::ordered_json;

std::string plan_object(const Survey& survey, const Plan& plan, const MachineRates& rates) {
    const Checkpoint& checkpoint = survey.checkpoint;
    const ModelConfig& config = checkpoint.config();
    ordered_json object = {{"model", checkpoint.name()},
                           {"revision", checkpoint.revision()},
                           {"commit", checkpoint.commit()},
                           {"family", checkpoint.family().name},
                           {"model_layers", config.layers},
                           {"layers", {survey.layers.begin, survey.layers.end}},
                           {"heads", config.heads},
                           {"kv_heads", config.kv_heads},
                           {"head_dim", config.head_dim},
                           {"hidden", config.hidden},
                           {"intermediate", config.intermediate},
                           {"experts", config.moe.experts},
                           {"parameters", checkpoint.parameters()},
                           {"measures", measures_in_file(survey)},
                           {"result_file", survey.run.file.string()},
                           {"result_bytes", result_bytes(survey)},
                           {"product_path", survey.format.path},
                           {"ranks", plan.ranks.size()},
                           {"passes", plan.passes},
                           {"bytes_read", plan.bytes_read()},
                           {"flops", plan.flops()},
                           {"budget", plan.input.budget}};
    for (std::size_t m = 0; m < plan.input.measures.size(); ++m)
        object["predicted_seconds"][plan.input.measures[m].name] = predicted_seconds(plan, m, rates);
    for (const RankPlan& rank : plan.ranks) {
        ordered_json one = {{"bytes_read", rank.bytes_read}, {"flops", rank.flops()}, {"memory", rank.memory.total()}};
        if (plan.input.device) one["device_memory"] = rank.device.total();
        object["by_rank"].push_back(std::move(one));
    }
    return object.dump(2) + "\n";
}

}  // namespace geom
