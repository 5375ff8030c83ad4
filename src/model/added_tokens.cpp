#include "model/added_tokens.hpp"

#include <algorithm>
#include <utility>

#include "model/regex.hpp"
#include "model/unicode.hpp"

namespace geom {
namespace {

/// Whether a letter, mark, digit or joining sign of a word (Unicode's annex 18, \w) stands at the end of `before` or at
/// the beginning of `behind`.
bool touches_word(std::string_view before, std::string_view behind) {
    static const Regex word(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}])", false, "a word's characters");
    return !word.matches(last_character(before)).empty() || !word.matches(first_character(behind)).empty();
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) {
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
    for (AddedToken& token : tokens) {
        tokens_[static_cast<unsigned char>(token.content.front())].push_back(std::move(token));
    }
}

const AddedToken* AddedTokens::token_at(std::string_view text, std::size_t at) const {
    const std::string_view rest = text.substr(at);
    for (const AddedToken& token : tokens_[static_cast<unsigned char>(rest.front())]) {
        if (rest.starts_with(token.content)) return &token;
    }
    return nullptr;
}

std::vector<AddedTokens::Section> AddedTokens::split(std::string_view text) const {
    std::vector<Section> sections;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
        const AddedToken* token = token_at(text, at);
        if (token == nullptr) {
            ++at;
            continue;
        }
        std::size_t begin = at, end = at + token->content.size();
        at = end;
        const std::string_view before = text.substr(0, begin), behind = text.substr(end);
        if (token->single_word && touches_word(before, behind)) continue;
        if (token->lstrip) begin = std::max(begin - trailing_white_space(before), done);
        if (token->rstrip) end += leading_white_space(behind);
        if (done < begin) sections.push_back({text.substr(done, begin - done), -1});
        sections.push_back({text.substr(begin, end - begin), token->id});
        done = end;
    }
    if (done < text.size()) sections.push_back({text.substr(done), -1});
    return sections;
}

}  // namespace geom
