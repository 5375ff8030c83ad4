#include "model/pre_tokenizer.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "model/regex.hpp"
#include "support/error_of.hpp"

namespace geom {
namespace {

using test::error_of;
using test::says;
using Words = std::vector<std::string_view>;

const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

Json split_by(const Json& pattern, const char* behavior = "Isolated", bool invert = false) {
    return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
}

PreTokenizer read(const std::vector<Json>& parts) {
    return PreTokenizer::read({{"type", "Sequence"}, {"pretokenizers", parts}}, "a test");
}

std::vector<std::size_t> ends(const std::string& pattern, std::string_view text) {
    std::vector<std::size_t> found;
    for (const auto& span : Regex(pattern, false, "a test").matches(text)) found.push_back(span.end);
    return found;
}

TEST(PreTokenizer, makes_words_of_matches_and_of_what_lies_between) {
    const Json pattern = {{"Regex", "\\d+"}};
    EXPECT_EQ(read({split_by(pattern), bytes}).words("a12b3"), (Words{"a", "12", "b", "3"}));
    EXPECT_EQ(read({split_by(pattern, "Isolated", true), bytes}).words("a12b3"), (Words{"a", "12", "b", "3"}));
    EXPECT_EQ(read({split_by(pattern, "Removed"), bytes}).words("a12b3"), (Words{"a", "b"}));
    EXPECT_EQ(read({split_by(pattern, "Removed", true), bytes}).words("a12b3"), (Words{"12", "3"}));
    EXPECT_TRUE(read({split_by(pattern), bytes}).words("").empty());
}

TEST(PreTokenizer, splits_the_pieces_of_one_split_by_the_next_each_by_itself) {
    const PreTokenizer two = read({split_by({{"String", "."}}), split_by({{"Regex", "^a|b$"}}), bytes});
    EXPECT_EQ(two.words("ab.ab"), (Words{"a", "b", ".", "a", "b"}));
    EXPECT_EQ(two.words("aab.bba"), (Words{"a", "a", "b", ".", "bba"}));
}

TEST(PreTokenizer, takes_a_string_for_what_it_is) {
    EXPECT_EQ(read({split_by({{"String", "a.(c"}}), bytes}).words("abc a.(c"), (Words{"abc ", "a.(c"}));
}

TEST(PreTokenizer, parts_digits_alone_or_in_runs) {
    const auto digits = [](bool alone) { return Json{{"type", "Digits"}, {"individual_digits", alone}}; };
    EXPECT_EQ(read({digits(true), bytes}).words("a12\u0663b"), (Words{"a", "1", "2", "\u0663", "b"}));
    EXPECT_EQ(read({digits(false), bytes}).words("a12\u0663b"), (Words{"a", "12\u0663", "b"}));
}

TEST(PreTokenizer, has_the_pattern_of_gpt2_in_byte_level) {
    Json whole = bytes;
    whole["use_regex"] = true;
    EXPECT_EQ(read({whole}).words("I'll see  it's 12th!\n"),
              (Words{"I", "'ll", " see", " ", " it", "'s", " 12", "th", "!", "\n"}));
}

TEST(Regex, counts_an_empty_match_unless_it_stands_where_the_last_one_ended) {
    EXPECT_EQ(ends("x*", "axxb"), (std::vector<std::size_t>{0, 3, 4}));
    EXPECT_EQ(ends("x*", ""), (std::vector<std::size_t>{0}));
    EXPECT_EQ(ends("", "\u00e9a"), (std::vector<std::size_t>{0, 2, 3}));
}

TEST(Regex, has_lines_and_case_as_ruby_has_them) {
    EXPECT_EQ(ends("a$", "a\na\r\na"), (std::vector<std::size_t>{1, 6}));
    EXPECT_EQ(ends("^a", "a\na"), (std::vector<std::size_t>{1, 3}));
    EXPECT_EQ(ends("(?i:'s)", "'s'S'\u017f"), (std::vector<std::size_t>{2, 4, 7}));
}

TEST(Regex, reads_runs_of_a_million_characters) {
    const std::string spaces(1'000'000, ' '), letters(1'000'000, 'x');
    const std::string pattern = pcre2_pattern(R"([^\r\n\p{L}\p{N}]?\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+)", "a test");
    EXPECT_EQ(ends(pattern, spaces + letters), (std::vector<std::size_t>{999'999, 2'000'000}));
    EXPECT_EQ(ends(R"((?:(a)|(b)|x)+)", letters.substr(0, 200'000)), (std::vector<std::size_t>{200'000}));
}

TEST(RegexSyntax, is_put_so_that_both_engines_mean_the_same) {
    EXPECT_EQ(pcre2_pattern(R"([^\s\p{L}]+|\S\p{^Han}\.{2,3}\n(?i:a)(?!b))", "a test"),
              R"([^\p{White_Space}\p{L}]+|\P{White_Space}\p{^sc:Han}\.{2,3}\n(?i:a)(?!b))");
    EXPECT_EQ(ends(pcre2_pattern("\\s", "a test"), " \u180e\u00a0\u3000"), (std::vector<std::size_t>{1, 6, 9}));
    EXPECT_EQ(ends(pcre2_pattern("\\p{Han}", "a test"), "\u4e00\u3001"), (std::vector<std::size_t>{3}));  // not U+3001
    for (const char* unlike : {"\\h", "\\w", "\\b", "\\1", "\\x41", "\\pL", "[[:alpha:]]", "[a[b]]", "[a&&b]",
                               "(?<n>a)", "(?m:a)", "(*UTF)", "a{,3}", "a{2}?", "a{2}{3", "\\p{Script=Han}", "\\"}) {
        EXPECT_TRUE(says(error_of([&] { pcre2_pattern(unlike, "a test"); }), "in a pattern", "--token-ids")) << unlike;
    }
}

}  // namespace
}  // namespace geom
