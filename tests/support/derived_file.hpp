// A result file in progress: numbers that were measured, and what derivations make of them.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/describe_shape.hpp"
#include "derivations/derivation.hpp"
#include "measures/measure.hpp"
#include "output/result_file.hpp"
#include "support/temporary_folder.hpp"

namespace geom::test {

/// The schema of gram and heads as measures declare it, and of match/cross_gram, some or all of them.
inline Schema measured_schema(const ModelShape& shape, const std::vector<std::string>& groups) {
    const auto rows = shape.attention_rows();
    Schema schema{
        {layer_scale(shape, "", "layer", shape.all_rows()), layer_scale(shape, "", "layer_b", shape.all_rows())}, {}};
    for (const std::string& group : groups) {
        if (group != "match") {
            schema.add(find_measure(group)->declare(shape));
            continue;
        }
        schema.add({{layer_scale(shape, group, "layer", rows), layer_scale(shape, group, "layer_b", rows),
                     head_scale(shape), root_scale("head_b", shape.heads, "query head, second of a pair")},
                    {{group, "cross_gram", {"layer", "head", "layer_b", "head_b"}, ValueType::f32, "", "1", ""}}});
    }
    return schema;
}

class DerivedFile {
public:
    DerivedFile(const Schema& measured, const ModelShape& shape)
        : schema_(with_derivations(measured)), name_(folder_ / "result.h5") {
        create_skeleton(name_, schema_, {{"", "hidden", shape.hidden}, {"", "group_size", shape.group_size()}});
    }

    /// Numbers of a variable, converted to its type.
    void put(const std::string& path, const std::vector<double>& numbers) {
        const Variable& variable = schema_.variables[static_cast<std::size_t>(schema_.index_of(path))];
        append(name_, schema_,
               {variable.type == ValueType::f64
                    ? whole_slab(schema_, path, numbers)
                    : whole_slab(schema_, path, std::vector<float>(numbers.begin(), numbers.end()))},
               {});
    }

    /// Numbers of the variable's own type.
    template <class T>
    void put_whole(const std::string& path, const std::vector<T>& numbers) {
        append(name_, schema_, {whole_slab(schema_, path, numbers)}, {});
    }

    /// Everything that is measured from a file that has it.
    void put_all(const ResultReader& from, const Schema& measured) {
        for (const Variable& variable : measured.variables) put(variable.path(), from.read(variable.path()));
    }

    /// Runs all derivations; expects every element of what they declare once.
    void derive(const DerivationSettings& settings = {}) {
        std::map<std::int64_t, std::int64_t> elements;
        ResultEditor editor(name_);
        for (const Derivation& derivation : derivations()) {
            if (derivation.declare(schema_).variables.empty()) continue;
            derivation.compute({editor.reader(), schema_, settings,
                                [&](const Slab& slab) {
                                    editor.write(schema_, slab);
                                    elements[slab.variable] += slab.elements();
                                },
                                [&](const Attribute& attribute) {
                                    EXPECT_EQ(attribute.group, "analysis");
                                    attributes[attribute.name] = std::get<std::string>(attribute.value);
                                }});
        }
        editor.close();
        for (const Variable& variable : schema_.variables) {
            const std::int64_t index = schema_.index_of(variable.path());
            if (elements.contains(index)) {
                EXPECT_EQ(elements[index] * size_of(variable.type), schema_.bytes_of(variable)) << variable.path();
            }
        }
        derived = static_cast<std::int64_t>(elements.size());
    }

    std::vector<double> operator[](const std::string& path) const { return ResultReader(name_, true).read(path); }
    double number(const std::string& path) const { return (*this)[path].front(); }
    bool has(const std::string& path) const { return schema_.find(path) >= 0; }
    const Schema& schema() const { return schema_; }

    std::map<std::string, std::string> attributes;  ///< of group analysis
    std::int64_t derived = 0;                       ///< variables that were emitted

private:
    TemporaryFolder folder_;
    Schema schema_;
    std::filesystem::path name_;
};

}  // namespace geom::test
