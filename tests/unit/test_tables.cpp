// How tables look: columns that line up, cells that no format takes for its own marks, numbers that come back.
#include "output/tables.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/error_of.hpp"

using namespace geom;
using namespace geom::test;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

TableSet of(Table table) { return {{}, {std::move(table)}}; }

Table numbers(const std::vector<double>& values) {
    Table table{"numbers", "Numbers", "", {{"value"}}, {}};
    for (const double value : values) table.rows.push_back({value});
    return table;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

/// The lines of a text from the table's header on.
std::vector<std::string> body(const std::string& text) {
    auto lines = lines_of(text);
    const auto title = std::find_if(lines.begin(), lines.end(), [](const auto& line) { return line.starts_with("="); });
    lines.erase(lines.begin(), std::find(title, lines.end(), "") + 1);
    return lines;
}

}  // namespace

TEST(Tables, as_text_line_up_under_a_title_and_a_note) {
    const TableSet set{{{"model", "m"}, {"hidden", std::int64_t{64}}},
                       {{"cos",
                         "Cosines",
                         "By chance 0.",
                         {{"what", "", Align::left}, {"cos"}, {"time", "s"}},
                         {{"first", 0.5, 12.0}, {"b", -0.25, std::int64_t{100}}}}}};
    EXPECT_EQ(as_text(set),
              "model   m\n"
              "hidden  64\n"
              "\n\n"
              "Cosines\n"
              "=======\n"
              "By chance 0.\n"
              "\n"
              "what       cos  time (s)\n"
              "-----  -------  --------\n"
              "first   0.5000     12.00\n"
              "b      -0.2500       100\n");
}

TEST(Tables, show_people_four_digits_and_programs_all_of_them) {
    const Table table =
        numbers({0.58331234, 1.0 / 3.0, 1234.0, 1e-7, 123456.0, -999.96, 0.0, not_a_number, infinity, -infinity});
    const std::vector<std::string> shown{"0.5833", "0.3333", "1234", "1.000e-07", "1.235e+05",
                                         "-1000",  "0.000",  "NaN",  "inf",       "-inf"};
    auto text = body(as_text(of(table)));
    ASSERT_EQ(text.size(), shown.size() + 2);
    const auto markdown = lines_of(as_markdown(of(table)));
    const auto csv = lines_of(as_csv(table));
    for (std::size_t i = 0; i < shown.size(); ++i) {
        EXPECT_EQ(text[i + 2].substr(text[i + 2].find_first_not_of(' ')), shown[i]);
        EXPECT_EQ(markdown[markdown.size() - shown.size() + i], "| " + shown[i] + " |");
        const double value = std::get<double>(table.rows[i][0]), back = std::stod(csv[i + 1]);
        EXPECT_TRUE(back == value || (std::isnan(back) && std::isnan(value))) << csv[i + 1];
    }
    const auto rows = nlohmann::json::parse(as_json(of(table)))["tables"]["numbers"]["rows"];
    for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(rows[i]["value"].get<double>(), std::get<double>(table.rows[i][0]));
    for (std::size_t i = 7; i < 10; ++i) EXPECT_TRUE(rows[i]["value"].is_null());
}

TEST(Tables, count_characters_and_not_bytes) {
    const Table table{"t",
                      "Größe",
                      "",
                      {{"模型", "", Align::left}, {"n"}},
                      {{"naïve", std::int64_t{1}}, {"nai\u0308ve", std::int64_t{2}}, {"ascii", std::int64_t{3}}}};
    const auto lines = lines_of(as_text(of(table)));
    EXPECT_EQ(lines[1], "=====") << "as long as the title is";
    const auto rows = body(as_text(of(table)));
    EXPECT_EQ(rows, (std::vector<std::string>{"模型     n", "-----  -", "naïve  1", "nai\u0308ve  2", "ascii  3"}));
}

TEST(Tables, that_are_wider_than_the_terminal_are_cut_into_blocks_that_repeat_the_keys) {
    Table table{"t", "T", "", {{"layer"}, {"h0"}, {"h1"}, {"h2"}}, {{std::int64_t{7}, 1.0, 2.0, 3.0}}};
    EXPECT_EQ(body(as_text(of(table), 20)),
              (std::vector<std::string>{"layer     h0     h1", "-----  -----  -----", "    7  1.000  2.000", "",
                                        "layer     h2", "-----  -----", "    7  3.000"}));
    table.keys = 2;
    EXPECT_EQ(body(as_text(of(table), 1)).size(), 7U) << "a block holds one column beside the keys, however narrow";
    table.keys = 4;
    EXPECT_EQ(body(as_text(of(table), 1)).size(), 3U) << "nothing but keys is not cut";
    EXPECT_EQ(body(as_text(of({"t", "T", "", {}, {}}))).size(), 2U);
}

TEST(Tables, wrap_their_notes_between_words) {
    const auto lines = lines_of(as_text(of({"t", "T", "one two three unbreakablylong four", {{"a"}}, {}}), 9));
    EXPECT_EQ(std::vector<std::string>(lines.begin() + 2, lines.begin() + 7),
              (std::vector<std::string>{"one two", "three", "unbreakablylong", "four", ""}));
}

TEST(Tables, as_markdown_escape_what_markdown_would_read) {
    const Table table{"t", "a_b *c*", "x < y | z", {{"a|b", "", Align::left}, {"p_0.01"}}, {{"one\ntwo `c` \\", {}}}};
    EXPECT_EQ(as_markdown({{{"model", "org/m_1"}}, {table}}),
              "# org/m\\_1\n"
              "\n"
              "- model: org/m\\_1\n"
              "\n"
              "## a\\_b \\*c\\*\n"
              "\n"
              "x \\< y \\| z\n"
              "\n"
              "| a\\|b | p\\_0.01 |\n"
              "| :--- | ---: |\n"
              "| one two \\`c\\` \\\\ |  |\n");
}

TEST(Tables, as_csv_quote_what_would_end_a_field) {
    const Table table{
        "t",
        "T",
        "",
        {{"what, then"}, {"time", "s"}},
        {{"a \"b\"\nc", 1.5}, {" blank", {}}, {"# no comment", not_a_number}, {"plain", std::int64_t{4}}}};
    EXPECT_EQ(as_csv(table),
              "\"what, then\",time (s)\n"
              "\"a \"\"b\"\"\nc\",1.5\n"
              "\" blank\",\n"
              "\"# no comment\",NaN\n"
              "plain,4\n");
    EXPECT_EQ(as_csv_sections({{}, {numbers({1.0}), numbers({2.0})}}),
              "# numbers: Numbers\nvalue\n1\n\n# numbers: Numbers\nvalue\n2\n");
}

TEST(Tables, as_json_are_one_object_whatever_bytes_a_name_has) {
    const Table table{"t", "T", "N", {{"a", "s"}, {"b"}}, {{1.5, "x\"y"}, {{}, "\xff"}}};
    const auto object =
        nlohmann::ordered_json::parse(as_json({{{"model", "m"}, {"anchor", std::int64_t{3}}}, {table}}));
    EXPECT_EQ(object["model"], "m");
    EXPECT_EQ(object["anchor"], 3);
    const auto& found = object["tables"]["t"];
    EXPECT_EQ(found["title"], "T");
    EXPECT_EQ(found["note"], "N");
    EXPECT_EQ(found["units"].dump(), R"({"a":"s"})");
    EXPECT_EQ(found["rows"][0].dump(), R"({"a":1.5,"b":"x\"y"})");
    EXPECT_TRUE(found["rows"][1]["a"].is_null());
    EXPECT_EQ(found["rows"][1]["b"], "\uFFFD");
    EXPECT_TRUE(nlohmann::json::parse(as_json({}))["tables"].empty());
}

TEST(Tables, with_a_row_of_another_length_than_their_columns_are_refused) {
    const TableSet set = of({"t", "T", "", {{"a"}, {"b"}}, {{1.0}}});
    for (const auto& render :
         {+[](const TableSet& s) { return as_text(s); }, +[](const TableSet& s) { return as_markdown(s); },
          +[](const TableSet& s) { return as_csv_sections(s); }, +[](const TableSet& s) { return as_json(s); }}) {
        EXPECT_NE(error_of([&] { render(set); }, ExitCode::internal).find("t has 2 columns"), std::string::npos);
    }
}
