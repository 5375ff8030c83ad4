// Tables: what one is, and how it looks to people (text, Markdown) and to programs (CSV, JSON).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace geom {

/// Nothing, words, a label or a count, a number that was measured.
using Cell = std::variant<std::monostate, std::string, std::int64_t, double>;

enum class Align : std::uint8_t { left, right };

struct Column {
    std::string name;        ///< unique in its table
    std::string units = "";  ///< "" where dimensionless
    Align align = Align::right;
};

struct Table {
    std::string name;   ///< a word: of its file, and in JSON
    std::string title;  ///< a line
    std::string note;   ///< sentences: what a reader has to know, by chance what
    std::vector<Column> columns;
    std::vector<std::vector<Cell>> rows;  ///< each as long as `columns`
    std::int64_t keys = 1;                ///< leading columns that name a row, repeated where a table is cut
};

/// Tables of one file, and what they are of: "model", its name.
struct TableSet {
    std::vector<std::pair<std::string, Cell>> about;
    std::vector<Table> tables;
};

// Each throws Error(internal) when a row is not as long as its table's columns. People get four significant digits,
// programs as many as give the number back. NaN is NaN; in JSON it is null, like infinities.

/// For a terminal of `width` columns: aligned, wider tables cut into blocks of columns that stand one below the other.
std::string as_text(const TableSet& set, std::int64_t width = 120);

/// One document: what the set is of as its title, a heading a table, pipe tables; characters that Markdown takes for
/// its own are escaped.
std::string as_markdown(const TableSet& set);

/// One table as RFC 4180 has it, but for lines that end in a line feed alone: a header, then rows.
std::string as_csv(const Table& table);

/// All of them on one stream, each after a line "# NAME: TITLE" and before an empty one.
std::string as_csv_sections(const TableSet& set);

/// {about..., "tables": {NAME: {"title", "note", "units": {COLUMN: UNIT}, "rows": [{COLUMN: CELL, ...}, ...]}}}
std::string as_json(const TableSet& set);

}  // namespace geom
