#include "output/tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.hpp"

namespace geom {

namespace {

using nlohmann::ordered_json;

void check(const Table& table) {
    for (const auto& row : table.rows) {
        if (row.size() == table.columns.size()) continue;
        throw Error(ExitCode::internal, fmt::format("the table {} has {} columns and a row of {} cells", table.name,
                                                    table.columns.size(), row.size()));
    }
}

std::string heading(const Column& column) {
    return column.units.empty() ? column.name : fmt::format("{} ({})", column.name, column.units);
}

std::string one_line(std::string text) {
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }, ' ');
    return text;
}

// ---- numbers

std::string not_finite(double value) { return std::isnan(value) ? "NaN" : value > 0.0 ? "inf" : "-inf"; }

std::string four_digits(double value) {
    if (!std::isfinite(value)) return not_finite(value);
    std::string text = fmt::format("{:#.4g}", value);
    const std::size_t point = text.find('.');
    if (point >= (value < 0.0 ? 5U : 4U)) text.resize(std::min(point, text.size()));  // 1234. or 1234.0
    return text;
}

std::string all_digits(double value) { return std::isfinite(value) ? fmt::format("{}", value) : not_finite(value); }

template <class Number>
std::string text_of_cell(const Cell& cell, Number number) {
    if (const auto* text = std::get_if<std::string>(&cell)) return *text;
    if (const auto* integer = std::get_if<std::int64_t>(&cell)) return fmt::format("{}", *integer);
    if (const auto* value = std::get_if<double>(&cell)) return number(*value);
    return {};
}

std::string for_people(const Cell& cell) { return one_line(text_of_cell(cell, four_digits)); }

// ---- text

// Code points; those that combine with the one before take no room.
std::int64_t width_of(std::string_view text) {
    std::int64_t width = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
        const bool continues = (byte & 0xC0U) == 0x80U;
        const bool combines = byte == 0xCC || (byte == 0xCD && next < 0xB0U);  // U+0300 to U+036F
        if (!continues && !combines) ++width;
    }
    return width;
}

std::string padded(const std::string& text, std::int64_t width, Align align) {
    const std::string blanks(static_cast<std::size_t>(std::max<std::int64_t>(0, width - width_of(text))), ' ');
    return align == Align::left ? text + blanks : blanks + text;
}

std::string without_blanks_at_its_end(std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    return line;
}

std::string wrapped(const std::string& text, std::int64_t width) {
    std::string lines, line;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find(' ', begin), text.size());
        const std::string word = text.substr(begin, end - begin);
        begin = end + 1;
        if (!line.empty() && width_of(line) + 1 + width_of(word) > width) {
            lines += line + "\n";
            line.clear();
        }
        line += (line.empty() ? "" : " ") + word;
    }
    return line.empty() ? lines : lines + line + "\n";
}

/// A table as aligned lines.
class TextTable {
public:
    explicit TextTable(const Table& table) : table_(table) {
        check(table);
        cells_.emplace_back();
        for (const Column& column : table.columns) cells_[0].push_back(one_line(heading(column)));
        for (const auto& row : table.rows) {
            cells_.emplace_back();
            for (const Cell& cell : row) cells_.back().push_back(for_people(cell));
        }
        for (std::size_t column = 0; column < table.columns.size(); ++column) {
            widths_.push_back(0);
            for (const auto& row : cells_) widths_.back() = std::max(widths_.back(), width_of(row[column]));
        }
    }

    std::string lines(std::int64_t width) const {
        std::string text;
        const std::size_t keys = std::min(static_cast<std::size_t>(table_.keys), widths_.size());
        for (std::size_t begin = keys; begin == keys || begin < widths_.size();) {
            std::vector<std::size_t> columns;
            std::int64_t used = 0;
            const auto take = [&](std::size_t column) {
                columns.push_back(column);
                used += widths_[column] + gap;
            };
            for (std::size_t key = 0; key < keys; ++key) take(key);
            const std::size_t first = begin;
            while (begin < widths_.size() && (begin == first || used + widths_[begin] <= width)) take(begin++);
            if (first > keys) text += "\n";
            text += block(columns);
            if (columns.size() == keys) break;
        }
        return text;
    }

private:
    static constexpr std::int64_t gap = 2;

    std::string block(const std::vector<std::size_t>& columns) const {
        std::string text, rule;
        for (std::size_t row = 0; row < cells_.size(); ++row) {
            std::string line;
            for (const std::size_t column : columns) {
                const std::string space(line.empty() ? 0 : gap, ' ');
                line += space + padded(cells_[row][column], widths_[column], table_.columns[column].align);
                if (row == 0) rule += space + std::string(static_cast<std::size_t>(widths_[column]), '-');
            }
            text += without_blanks_at_its_end(line) + "\n";
            if (row == 0) text += rule + "\n";
        }
        return text;
    }

    const Table& table_;
    std::vector<std::vector<std::string>> cells_;  // the header first
    std::vector<std::int64_t> widths_;
};

// ---- Markdown

std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
        if (std::string_view("\\`*_[]<>|#~&").find(c) != std::string_view::npos) result += '\\';
        result += c;
    }
    return result;
}

std::string markdown_row(const std::vector<std::string>& cells) {
    std::string line = "|";
    for (const std::string& cell : cells) line += fmt::format(" {} |", cell);
    return line + "\n";
}

std::string markdown_table(const Table& table) {
    check(table);
    std::vector<std::string> names, rules;
    for (const Column& column : table.columns) {
        names.push_back(escaped(one_line(heading(column))));
        rules.emplace_back(column.align == Align::left ? ":---" : "---:");
    }
    std::string text = markdown_row(names) + markdown_row(rules);
    for (const auto& row : table.rows) {
        std::vector<std::string> cells;
        for (const Cell& cell : row) cells.push_back(escaped(for_people(cell)));
        text += markdown_row(cells);
    }
    return text;
}

// ---- CSV and JSON

std::string quoted(const std::string& text) {
    const bool plain = text.find_first_of(",\"\r\n") == std::string::npos && !text.starts_with(' ') &&
                       !text.ends_with(' ') && !text.starts_with('#');
    if (plain) return text;
    std::string result = "\"";
    for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
    return result + "\"";
}

ordered_json json_of(const Cell& cell) {
    if (const auto* text = std::get_if<std::string>(&cell)) return *text;
    if (const auto* integer = std::get_if<std::int64_t>(&cell)) return *integer;
    const auto* value = std::get_if<double>(&cell);
    return value != nullptr && std::isfinite(*value) ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json json_of(const Table& table) {
    check(table);
    ordered_json units = ordered_json::object(), rows = ordered_json::array();
    for (const Column& column : table.columns)
        if (!column.units.empty()) units[column.name] = column.units;
    for (const auto& row : table.rows) {
        ordered_json object = ordered_json::object();
        for (std::size_t i = 0; i < row.size(); ++i) object[table.columns[i].name] = json_of(row[i]);
        rows.push_back(std::move(object));
    }
    return {{"title", table.title}, {"note", table.note}, {"units", units}, {"rows", rows}};
}

}  // namespace

std::string as_text(const TableSet& set, std::int64_t width) {
    std::int64_t names = 0;
    for (const auto& [name, value] : set.about) names = std::max(names, width_of(name));
    std::string text;
    for (const auto& [name, value] : set.about)
        text += fmt::format("{}  {}\n", padded(name, names, Align::left), for_people(value));
    for (const Table& table : set.tables) {
        const std::string title = one_line(table.title);
        text += fmt::format("{}{}\n{}\n{}\n{}", text.empty() ? "" : "\n\n", title,
                            std::string(static_cast<std::size_t>(width_of(title)), '='),
                            wrapped(one_line(table.note), width), TextTable(table).lines(width));
    }
    return text;
}

std::string as_markdown(const TableSet& set) {
    std::string text;
    if (!set.about.empty()) text = fmt::format("# {}\n\n", escaped(for_people(set.about.front().second)));
    for (const auto& [name, value] : set.about)
        text += fmt::format("- {}: {}\n", escaped(name), escaped(for_people(value)));
    for (const Table& table : set.tables) {
        text += fmt::format("{}## {}\n\n{}{}", text.empty() ? "" : "\n", escaped(one_line(table.title)),
                            table.note.empty() ? "" : escaped(one_line(table.note)) + "\n\n", markdown_table(table));
    }
    return text;
}

std::string as_csv(const Table& table) {
    check(table);
    std::string text;
    for (const Column& column : table.columns)
        text += fmt::format("{}{}", &column == table.columns.data() ? "" : ",", quoted(heading(column)));
    text += "\n";
    for (const auto& row : table.rows) {
        for (const Cell& cell : row)
            text += fmt::format("{}{}", &cell == row.data() ? "" : ",", quoted(text_of_cell(cell, all_digits)));
        text += "\n";
    }
    return text;
}

std::string as_csv_sections(const TableSet& set) {
    std::string text;
    for (const Table& table : set.tables) {
        text +=
            fmt::format("{}# {}: {}\n{}", text.empty() ? "" : "\n", table.name, one_line(table.title), as_csv(table));
    }
    return text;
}

std::string as_json(const TableSet& set) {
    ordered_json object = ordered_json::object(), tables = ordered_json::object();
    for (const auto& [name, value] : set.about) object[name] = json_of(value);
    for (const Table& table : set.tables) tables[table.name] = json_of(table);
    object["tables"] = std::move(tables);
    return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace geom
