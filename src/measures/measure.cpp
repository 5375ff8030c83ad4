#include "measures/measure.hpp"

#include <algorithm>
#include <cstring>

namespace geom {

const Measure* find_measure(std::string_view name) {
    const auto all = measures();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Measure& measure) { return measure.name == name; });
    return found == all.end() ? nullptr : &*found;
}

double number_of(const StoredRows& rows, std::int64_t i) {
    const std::byte* from = rows.data.data() + i * size_of(rows.dtype);
    const auto as = [from](auto value) {
        std::memcpy(&value, from, sizeof value);
        return value;
    };
    switch (rows.dtype) {
        case DType::bf16:
            return bf16_to_f32(as(std::uint16_t{}));
        case DType::f16:
            return f16_to_f32(as(std::uint16_t{}));
        case DType::f64:
            return as(double{});
        default:
            return as(float{});
    }
}

MeasureDemand demand_of(const Measure& measure, const ModelShape& shape, Backend& backend,
                        const std::function<bool(const Unit&)>& is_done) {
    MeasureDemand demand;
    demand.name = measure.name;
    demand.needs = measure.needs(shape);
    demand.owed = measure.units(shape);
    demand.units = std::ssize(demand.owed);
    const Schema schema = measure.declare(shape);
    for (const Variable& variable : schema.variables) {
        const std::int64_t bytes = schema.bytes_of(variable);
        demand.result_bytes += bytes;
        demand.largest_variable = std::max(demand.largest_variable, bytes);
    }
    std::erase_if(demand.owed, is_done);
    std::sort(demand.owed.begin(), demand.owed.end());
    if (measure.memory != nullptr) demand.memory = measure.memory(shape, backend);
    if (measure.work != nullptr) demand.work = measure.work;
    return demand;
}

Scale layer_scale(const ModelShape& shape, const std::string& group, const std::string& name,
                  const std::vector<std::int64_t>& rows) {
    const char* long_name = name == "layer_b" ? "decoder layer, second of a pair" : "decoder layer";
    return {group, name, static_cast<std::int64_t>(rows.size()), {}, long_name, shape.numbers(rows)};
}

Scale root_scale(const std::string& name, std::int64_t length, const std::string& long_name) {
    return {"", name, length, {}, long_name, {}};
}

Scale head_scale(const ModelShape& shape) { return root_scale("head", shape.heads, "query head"); }

std::vector<Unit> layer_units(std::string_view measure, const std::vector<std::int64_t>& rows, std::int64_t sets) {
    std::vector<Unit> units;
    for (const std::int64_t row : rows) {
        for (std::int64_t set = 0; set < sets; ++set) units.push_back({std::string(measure), UnitOf::layer, row, set});
    }
    return units;
}

}  // namespace geom
