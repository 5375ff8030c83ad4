#include "model/pre_tokenizer.hpp"

#include <fmt/format.h>

#include "model/tokenizer_fields.hpp"

namespace geom {
namespace {

constexpr const char* gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

Regex read_pattern(const Json& pattern, const std::string& shown) {
    if (find_field(pattern, "String", shown) != nullptr) return {text_field(pattern, "String", shown), true, shown};
    return {pcre2_pattern(text_field(pattern, "Regex", shown), shown), false, shown};
}

}  // namespace

PreTokenizer PreTokenizer::read(const Json& entry, const std::string& shown) {
    PreTokenizer result;
    if (entry.is_null()) refuse_tokenizer(shown, "no pre_tokenizer");
    result.add(entry, shown + ": pre_tokenizer");
    if (!result.ends_in_bytes_) refuse_tokenizer(shown, "a pre_tokenizer without ByteLevel");
    return result;
}

void PreTokenizer::add(const Json& entry, const std::string& shown) {
    const std::string type = text_field(entry, "type", shown);
    if (type == "Sequence") {
        for (const Json& part : array_field(entry, "pretokenizers", shown)) add(part, shown);
        return;
    }
    if (ends_in_bytes_) refuse_tokenizer(shown, in_quotes(type) + " after ByteLevel");
    if (type == "Split") {
        add_split(entry, shown);
    } else if (type == "Digits") {
        const bool alone = flag_field(entry, "individual_digits", shown, false);
        splits_.push_back({Regex(alone ? R"(\p{N})" : R"(\p{N}+)", false, shown), true, true});
    } else if (type == "ByteLevel") {
        if (flag_field(entry, "add_prefix_space", shown, true)) {
            refuse_tokenizer(shown, "ByteLevel with add_prefix_space");
        }
        if (flag_field(entry, "use_regex", shown, true)) {
            splits_.push_back({Regex(pcre2_pattern(gpt2_pattern, shown), false, shown), true, true});
        }
        ends_in_bytes_ = true;
    } else {
        refuse_tokenizer(shown, in_quotes(type));
    }
}

void PreTokenizer::add_split(const Json& entry, const std::string& shown) {
    const std::string behavior = text_field(entry, "behavior", shown);
    const bool inverted = flag_field(entry, "invert", shown, false);
    if (behavior != "Isolated" && behavior != "Removed") {
        refuse_tokenizer(shown, "a Split with behavior " + in_quotes(behavior));
    }
    const bool keeps_all = behavior == "Isolated";
    splits_.push_back(
        {read_pattern(field(entry, "pattern", shown), shown), keeps_all || inverted, keeps_all || !inverted});
}

std::vector<std::string_view> PreTokenizer::words(std::string_view text) const {
    std::vector<std::string_view> words{text};
    for (const Split& split : splits_) {
        std::vector<std::string_view> finer;
        for (const std::string_view word : words) split.append_pieces(word, finer);
        words = std::move(finer);
    }
    return words;
}

void PreTokenizer::Split::append_pieces(std::string_view text, std::vector<std::string_view>& pieces) const {
    std::size_t done = 0;
    const auto append = [&](std::size_t end, bool kept) {
        if (kept && end > done) pieces.push_back(text.substr(done, end - done));
        done = end;
    };
    for (const Regex::Span& match : regex.matches(text)) {
        append(match.begin, keeps_rest);
        append(match.end, keeps_matches);
    }
    append(text.size(), keeps_rest);
}

}  // namespace geom
