// The table of geom-mpi bench: a number for every row and repetition.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace geom {

class BenchTable {
public:
    void add(const std::string& name, const std::string& unit, double value);

    /// Median, least and most of every row, for people.
    std::string text() const;
    /// The same and all values.
    nlohmann::ordered_json json() const;

private:
    struct Row {
        std::string name, unit;
        std::vector<double> values;
    };
    std::vector<Row> rows_;
};

}  // namespace geom
