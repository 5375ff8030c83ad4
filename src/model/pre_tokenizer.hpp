// How a text falls into words, which no token of the model crosses: the pre_tokenizer of tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json.hpp"
#include "model/regex.hpp"

namespace geom {

class PreTokenizer {
public:
    /// Reads a ByteLevel, or a Sequence that ends in one, after any number of
    ///   Split        by a Regex or a String: Isolated (matches and what lies between them are words), or Removed
    ///                (one of the two is dropped, as `invert` says)
    ///   Digits       digits alone or in runs
    ///   ByteLevel    use_regex: GPT-2's pattern, Isolated
    /// Throws Error(input) that names anything else.
    static PreTokenizer read(const Json& entry, const std::string& shown);

    /// The words of valid UTF-8, in order; views of `text`. Each split looks at every piece of the one before by
    /// itself.
    std::vector<std::string_view> words(std::string_view text) const;

private:
    struct Split {
        Regex regex;
        bool keeps_matches, keeps_rest;

        void append_pieces(std::string_view text, std::vector<std::string_view>& pieces) const;
    };
    void add(const Json& entry, const std::string& shown);
    void add_split(const Json& entry, const std::string& shown);

    std::vector<Split> splits_;
    bool ends_in_bytes_ = false;  ///< a ByteLevel was read: what follows would split its letters, not the text
};

}  // namespace geom
