// Regular expressions over UTF-8, by PCRE2 with Unicode's properties, compiled to machine code where PCRE2 can.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace geom {

class Regex {
public:
    /// Bytes of a text, half-open.
    struct Span {
        std::size_t begin = 0, end = 0;
    };

    /// `pattern` in PCRE2's syntax, or as it stands when `literal`. `shown` names it in messages.
    /// Throws Error(input) when it cannot be compiled.
    Regex(const std::string& pattern, bool literal, const std::string& shown);

    /// All matches in valid UTF-8, from left to right, none inside another. An empty one counts unless it stands where
    /// the one before it ends. May run on several threads at once.
    /// Throws Error(input) when a match takes more steps or memory than PCRE2 allows.
    std::vector<Span> matches(std::string_view text) const;

private:
    struct Code;
    std::shared_ptr<const Code> code_;
};

/// A pattern of tokenizer.json in PCRE2's syntax. There it is read by Oniguruma, in Ruby's syntax; what both read alike
/// is left as it is, \s, \S and names of scripts are said in a way that both mean the same, and what they read
/// differently (or what no tokenizer uses: \w, \h, &&, sets in sets, named groups, options for the rest of a group,
/// references) is an Error(input) that names it and --token-ids.
std::string pcre2_pattern(const std::string& pattern, const std::string& shown);

}  // namespace geom
