#include "model/tokenizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

namespace geom {
namespace {

using test::error_of;
using test::says;
using Ids = std::vector<std::int32_t>;
using Value = nlohmann::json;

const std::filesystem::path golden = std::filesystem::path(GEOM_TEST_DATA) / "golden";

Value json_of(const std::filesystem::path& file) { return Value::parse(std::ifstream(file)); }

Tokenizer read_as_file(const Value& content) {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "tokenizer.json") << content.dump();
    return Tokenizer::read(folder / "tokenizer.json");
}

/// A golden tokenizer.json with something changed.
Value altered(const std::string& model, const std::function<void(Value&)>& change) {
    Value content = json_of(golden / model / "tokenizer.json");
    change(content);
    return content;
}

std::string refusal(const std::function<void(Value&)>& change) {
    return error_of([&] { read_as_file(altered("qwen3-tiny", change)); });
}

class GoldenTokenizer : public ::testing::TestWithParam<std::string> {
protected:
    void expect_golden_ids(const Tokenizer& tokenizer) const {
        const Value texts = json_of(golden / GetParam() / "tokens.json");
        ASSERT_GT(texts.size(), 20U);
        for (const Value& entry : texts) {
            EXPECT_EQ(tokenizer.encode(entry["text"].get<std::string>()), entry["ids"].get<Ids>()) << entry["text"];
        }
    }
};

TEST_P(GoldenTokenizer, makes_every_id_of_the_tokenizers_library) {
    expect_golden_ids(Tokenizer::read(golden / GetParam() / "tokenizer.json"));
}

TEST_P(GoldenTokenizer, takes_merges_as_pairs_and_as_strings) {
    expect_golden_ids(read_as_file(altered(GetParam(), [](Value& content) {
        for (Value& merge : content["model"]["merges"]) {
            if (merge.is_array()) {
                merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
            } else {
                const auto text = merge.get<std::string>();
                merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
            }
        }
    })));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTokenizer,
                         ::testing::Values("qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny", "qwen3-trained"),
                         [](const auto& model) {
                             std::string name = model.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST(Tokenizer, takes_a_word_that_is_a_token_whole_only_where_merges_are_ignored) {
    const auto planted = [](bool ignored) {
        return altered("llama-tiny", [&](Value& content) {
            content["model"]["vocab"]["\u0120zebra"] = content["model"]["vocab"].size();  // no merge leads to it
            content["model"]["ignore_merges"] = ignored;
            for (Value& token : content["added_tokens"]) token["id"] = token["id"].get<int>() + 1;
            content["post_processor"] = nullptr;
        });
    };
    EXPECT_EQ(read_as_file(planted(true)).encode(" zebra"), Ids{1021});
    const Ids pieces = read_as_file(planted(false)).encode(" zebra");
    EXPECT_GT(pieces.size(), 1U);
    EXPECT_EQ(std::count(pieces.begin(), pieces.end(), 1021), 0);
    EXPECT_GT(read_as_file(planted(true)).encode(" zebras").size(), 1U);
}

TEST(Tokenizer, puts_the_begin_token_before_any_text_and_alone_for_none) {
    const Tokenizer llama = Tokenizer::read(golden / "llama-tiny" / "tokenizer.json");
    EXPECT_EQ(llama.encode(""), Ids{1021});
    EXPECT_EQ(llama.encode("a").front(), 1021);
    EXPECT_TRUE(Tokenizer::read(golden / "qwen3-tiny" / "tokenizer.json").encode("").empty());
}

/// qwen3-tiny's tokenizer with one more added token, of id 1024.
Value with_added(const std::string& content, const char* property, bool normalised) {
    return altered("qwen3-tiny", [&](Value& file) {
        Value token = {{"id", 1024}, {"content", content}, {"special", false}, {"normalized", normalised}};
        if (property != nullptr) token[property] = true;
        file["added_tokens"].push_back(token);
    });
}

TEST(Tokenizer, looks_for_added_tokens_before_nfc_or_after_it_as_each_says) {
    const std::string composed = "caf\u00e9", decomposed = "cafe\u0301";
    for (const auto& [content, normalised, text, found] : {std::tuple{composed, false, decomposed, false},
                                                           {composed, true, decomposed, true},
                                                           {decomposed, false, decomposed, true},
                                                           {decomposed, true, composed, true},
                                                           {decomposed, false, composed, false}}) {
        const Ids ids = read_as_file(with_added(content, nullptr, normalised)).encode("<" + text + ">");
        EXPECT_EQ(std::count(ids.begin(), ids.end(), 1024), found ? 1 : 0)
            << content << " " << normalised << " " << text;
    }
}

TEST(Tokenizer, lets_an_added_token_take_the_white_space_on_the_sides_that_it_strips) {
    const Value file = json_of(golden / "qwen3-tiny" / "tokenizer.json");
    const auto id = [&](const char* token) { return file["model"]["vocab"][token].get<std::int32_t>(); };
    const std::string text = "a \u3000[X]\t b";
    EXPECT_EQ(read_as_file(with_added("[X]", "lstrip", false)).encode(text),
              (Ids{id("a"), 1024, id("\u0109"), id("\u0120b")}));
    EXPECT_EQ(read_as_file(with_added("[X]", "rstrip", false)).encode("a[X]\t b"), (Ids{id("a"), 1024, id("b")}));
    EXPECT_EQ(read_as_file(with_added("[X]", nullptr, false)).encode("a[X]b"), (Ids{id("a"), 1024, id("b")}));
}

TEST(Tokenizer, takes_a_single_word_only_where_no_letter_digit_or_mark_touches_it) {
    const Tokenizer tokenizer = read_as_file(with_added("cat", "single_word", false));
    const auto found = [&](const std::string& text) {
        const Ids ids = tokenizer.encode(text);
        return std::count(ids.begin(), ids.end(), 1024);
    };
    EXPECT_EQ(found("cat, cat.(cat)"), 3);
    EXPECT_EQ(found("concat cats cat9 cat_ \u00e9cat cat\u0301 cat\u200d \u24d0cat"), 0);
}

TEST(Tokenizer, takes_the_longest_of_added_tokens_that_begin_together) {
    const Tokenizer tokenizer = read_as_file(altered("qwen3-tiny", [](Value& file) {
        int id = 1024;
        for (const char* content : {"<<", "<<<<", "<<<"}) {
            file["added_tokens"].push_back({{"id", id++}, {"content", content}, {"normalized", false}});
        }
    }));
    EXPECT_EQ(tokenizer.encode("<<<<<<<"), (Ids{1025, 1026}));
    EXPECT_EQ(tokenizer.encode("<<<<<<"), (Ids{1025, 1024}));
}

TEST(Tokenizer, names_the_byte_at_which_a_text_is_not_utf8) {
    const Tokenizer tokenizer = Tokenizer::read(golden / "qwen3-tiny" / "tokenizer.json");
    const std::vector<std::pair<std::string, int>> texts = {
        {"ab\x80", 2},            // a continuation without a beginning
        {"\u00e9\xc3(", 2},       // a beginning without a continuation
        {"\xc0\xaf", 0},          // overlong
        {"x\xe0\x80\x80", 1},     // overlong
        {"\xf0\x8f\xbf\xbf", 0},  // overlong
        {"\xed\xa0\x80", 0},      // a surrogate
        {"\xf4\x90\x80\x80", 0},  // beyond U+10FFFF
        {"\xff", 0},              // no beginning
        {"abc\xe2\x82", 3},       // cut short
    };
    for (const auto& [text, offset] : texts) {
        EXPECT_TRUE(says(error_of([&] { tokenizer.encode(text); }), "byte " + std::to_string(offset) + ":", "UTF-8"));
    }
    EXPECT_FALSE(tokenizer.encode(std::string("\0\xf4\x8f\xbf\xbf\xed\x9f\xbf", 8)).empty());
}

TEST(Tokenizer, refuses_by_name_what_would_make_other_ids_and_says_the_way_out) {
    const auto split = [](Value& file) -> Value& { return file["pre_tokenizer"]["pretokenizers"][0]; };
    const auto pattern = [&](const char* text) { return [=](Value& file) { split(file)["pattern"]["Regex"] = text; }; };
    const Value digits = {{"type", "Digits"}};
    const std::vector<std::pair<const char*, std::function<void(Value&)>>> changes = {
        {"'Unigram'", [](Value& file) { file["model"]["type"] = "Unigram"; }},
        {"'WordPiece'", [](Value& file) { file["model"]["type"] = "WordPiece"; }},
        {"byte_fallback", [](Value& file) { file["model"]["byte_fallback"] = true; }},
        {"dropout", [](Value& file) { file["model"]["dropout"] = 0.1; }},
        {"continuing_subword_prefix", [](Value& file) { file["model"]["continuing_subword_prefix"] = "##"; }},
        {"end_of_word_suffix", [](Value& file) { file["model"]["end_of_word_suffix"] = "</w>"; }},
        {"the byte 0x21", [](Value& file) { file["model"]["vocab"].erase("!"); }},
        {"'Lowercase'",
         [](Value& file) {
             file["normalizer"] = {{"type", "Lowercase"}};
         }},
        {"'NFKC'",
         [](Value& file) {
             file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "NFKC"}}}}};
         }},
        {"no pre_tokenizer", [](Value& file) { file["pre_tokenizer"] = nullptr; }},
        {"'Metaspace'",
         [](Value& file) {
             file["pre_tokenizer"] = {{"type", "Metaspace"}};
         }},
        {"without ByteLevel", [&](Value& file) { file["pre_tokenizer"] = digits; }},
        {"'Digits' after ByteLevel", [&](Value& file) { file["pre_tokenizer"]["pretokenizers"].push_back(digits); }},
        {"add_prefix_space", [](Value& file) { file["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; }},
        {"'MergedWithNext'", [&](Value& file) { split(file)["behavior"] = "MergedWithNext"; }},
        {"'\\w' in a pattern", pattern("\\w+")},
        {"'&&' in a pattern", pattern("[\\p{L}&&[^\\p{Han}]]+")},
        {"'(?i)' in a pattern", pattern("a(?i)b|c")},
        {"'{1,3}+' in a pattern", pattern("\\p{N}{1,3}+")},
        {"'BertProcessing'",
         [](Value& file) {
             file["post_processor"] = {{"type", "BertProcessing"}};
         }},
        {"'<|im_end|>' with the id 1040", [](Value& file) { file["added_tokens"][2]["id"] = 1040; }},
        {"'<|im_end|>' twice",
         [](Value& file) {
             file["added_tokens"].push_back(file["added_tokens"][2]);
             file["added_tokens"][3]["id"] = 1024;
         }},
    };
    for (const auto& [found, change] : changes) {
        EXPECT_TRUE(says(refusal(change), "tokenizer.json", found, "--token-ids FILE"));
    }
    const auto appends = [](Value& file) {
        Value& pieces = file["post_processor"]["processors"][1]["single"];
        pieces.push_back(pieces[0]);
    };
    EXPECT_TRUE(says(error_of([&] { read_as_file(altered("llama-tiny", appends)); }), "appends tokens", "--token-ids"));
}

TEST(Tokenizer, says_what_is_wrong_with_a_damaged_file) {
    const std::vector<std::pair<const char*, std::function<void(Value&)>>> changes = {
        {"'model' is missing", [](Value& file) { file.erase("model"); }},
        {"'merges' is missing", [](Value& file) { file["model"].erase("merges"); }},
        {"'vocab' is an array", [](Value& file) { file["model"]["vocab"] = Value::array(); }},
        {"the id of 'a' is -1", [](Value& file) { file["model"]["vocab"]["a"] = -1; }},
        {"merge 3", [](Value& file) { file["model"]["merges"][3] = 7; }},
        {"'a b c' is not two tokens", [](Value& file) { file["model"]["merges"][3] = "a b c"; }},
        {"'qq' is not in the vocabulary",
         [](Value& file) {
             file["model"]["merges"][0] = {"qq", "qq"};
         }},
        {"'type' is missing", [](Value& file) { file["pre_tokenizer"] = Value::object(); }},
        {"an object with 'content'", [](Value& file) { file["added_tokens"] = {1}; }},
    };
    for (const auto& [reason, change] : changes) EXPECT_TRUE(says(refusal(change), "tokenizer.json", reason));
    const auto no_parenthesis = [](Value& file) {
        file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a|b";
    };
    EXPECT_TRUE(says(refusal(no_parenthesis), "tokenizer.json", "pre_tokenizer", "byte 4", "parenthesis"));
    const test::TemporaryFolder folder;
    EXPECT_TRUE(says(error_of([&] { Tokenizer::read(folder / "tokenizer.json"); }), "tokenizer.json"));
    std::ofstream(folder / "tokenizer.json") << R"({"model": {"type": "BPE", "type": "BPE"}})";
    EXPECT_TRUE(says(error_of([&] { Tokenizer::read(folder / "tokenizer.json"); }), "stands twice"));
}

}  // namespace
}  // namespace geom
