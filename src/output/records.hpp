// The numbers of a run and their schema, as plain structs; what the journal keeps and the result file holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/unit.hpp"

namespace geom {

enum class ValueType : std::uint8_t { f64, f32, i32 };
std::int64_t size_of(ValueType type) noexcept;

/// What an attribute of the file, a group or a variable may hold; a list of texts is a 1-D array of strings.
using AttributeValue = std::variant<std::int64_t, double, std::string, std::vector<std::string>>;

/// A named axis. Its coordinates are 0, 1, ..., or `values`, or `labels` (written as a char array [length, width]).
struct Scale {
    std::string group;  ///< "" for the root
    std::string name;
    std::int64_t length = 0;
    std::vector<std::string> labels;
    std::string long_name;
    std::vector<std::int32_t> values;  ///< where 0, 1, ... would be wrong: layers 4:8, top_k_signs 2, 4, 8
    friend bool operator==(const Scale&, const Scale&) = default;

    std::string path() const { return group.empty() ? name : group + "/" + name; }
};

/// A variable of the result file. `dims` name scales of its own or an enclosing group; none for a scalar.
struct Variable {
    std::string group;
    std::string name;
    std::vector<std::string> dims;
    ValueType type = ValueType::f64;
    std::string long_name;
    std::string units = "1";
    std::string missing;  ///< why some numbers are NaN; empty when none can be

    std::string path() const { return group.empty() ? name : group + "/" + name; }
};

/// Everything the result file declares: axes and variables. Built from the model and the options alone.
struct Schema {
    std::vector<Scale> scales;
    std::vector<Variable> variables;

    /// -1 for an unknown path.
    std::int64_t find(const std::string& path) const noexcept;
    /// Throws Error(internal) for an unknown path.
    std::int64_t index_of(const std::string& path) const;
    /// The scale nearest to the variable: its own group's, else the next enclosing one's. Throws Error(internal).
    const Scale& scale_of(const Variable& variable, const std::string& dim) const;
    std::vector<std::int64_t> shape_of(const Variable& variable) const;
    /// Takes over another schema's scales and variables; equal scales merge. Throws Error(internal) when a scale or a
    /// variable of the same path is there and another one.
    void add(Schema other);
    std::int64_t bytes_of(const Variable& variable) const;
};

/// A box of one variable: elements [start, start + count) in every dimension, row-major.
struct Slab {
    std::int64_t variable = 0;  ///< index into Schema::variables
    std::vector<std::int64_t> start;
    std::vector<std::int64_t> count;
    std::vector<std::byte> data;

    std::int64_t elements() const noexcept;
};

/// A part of a slab that a single read or write moves: contiguous in the slab's memory, `offset` bytes from its start.
struct Piece {
    std::vector<std::int64_t> start;  ///< in the variable
    std::vector<std::int64_t> count;
    std::int64_t offset = 0;
    std::int64_t bytes = 0;
};

/// The slab cut along its outermost axes into pieces of at most `limit` bytes (or one element, if that is larger).
std::vector<Piece> pieces_of(const Slab& slab, std::int64_t element_bytes, std::int64_t limit);

/// "[3, 4]", for messages.
std::string text_of(const std::vector<std::int64_t>& numbers);

/// Throws Error(internal) when the slab has another rank than its variable, leaves its shape, or has another number of
/// bytes than its box.
void check_slab(const Schema& schema, const Slab& slab);

/// The slab of a variable at `start` with these numbers. Throws Error(internal) when they do not fit it.
Slab make_slab(const Schema& schema, const std::string& path, std::vector<std::int64_t> start,
               std::vector<std::int64_t> count, std::span<const std::byte> numbers);

/// The slab that is all of a variable.
template <class T>
Slab whole_slab(const Schema& schema, const std::string& path, const std::vector<T>& numbers) {
    std::vector<std::int64_t> count =
        schema.shape_of(schema.variables[static_cast<std::size_t>(schema.index_of(path))]);
    std::vector<std::int64_t> start(count.size(), 0);
    return make_slab(schema, path, std::move(start), std::move(count), std::as_bytes(std::span(numbers)));
}

/// Rows [begin, end) of a stored tensor, and what they add to the digest of all weights (Reader::digest_of).
struct RowsRead {
    std::string tensor;
    std::int64_t begin = 0, end = 0;
    std::uint64_t digest = 0;
    friend bool operator==(const RowsRead&, const RowsRead&) = default;
};

/// A finished unit, its numbers, and the rows that they were computed from.
struct UnitResult {
    Unit unit;
    std::vector<Slab> slabs;
    std::vector<RowsRead> read = {};
};

}  // namespace geom
