#include "app/bench_table.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace geom {

using nlohmann::ordered_json;

namespace {

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace

void BenchTable::add(const std::string& name, const std::string& unit, double value) {
    const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const Row& row) { return row.name == name; });
    Row& row = found == rows_.end() ? rows_.emplace_back(Row{name, unit, {}}) : *found;
    row.values.push_back(value);
}

std::string BenchTable::text() const {
    std::string out = fmt::format("{:<44} {:>10} {:>10} {:>10}  {}\n", "", "median", "min", "max", "unit");
    for (const Row& row : rows_) {
        const auto [low, high] = std::minmax_element(row.values.begin(), row.values.end());
        out += fmt::format("{:<44} {:>10.4g} {:>10.4g} {:>10.4g}  {}\n", row.name, median(row.values), *low, *high,
                           row.unit);
    }
    return out;
}

ordered_json BenchTable::json() const {
    ordered_json list = ordered_json::array();
    for (const Row& row : rows_) {
        const auto [low, high] = std::minmax_element(row.values.begin(), row.values.end());
        list.push_back({{"name", row.name},
                        {"unit", row.unit},
                        {"median", median(row.values)},
                        {"min", *low},
                        {"max", *high},
                        {"values", row.values}});
    }
    return list;
}

}  // namespace geom
