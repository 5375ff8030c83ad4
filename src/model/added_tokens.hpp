// Tokens that are cut out of a text before the model sees it, as the tokenizers library does it: <|im_start|> and such.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace geom {

struct AddedToken {
    std::string content;
    std::int32_t id = 0;
    bool single_word = false;  ///< only where no word's letter stands beside it
    bool lstrip = false;       ///< takes the white space before it
    bool rstrip = false;       ///< and behind it
};

class AddedTokens {
public:
    /// A stretch of a text: an added token, or what lies between two (id < 0, never empty).
    struct Section {
        std::string_view text;
        std::int32_t id = -1;
    };

    /// Every content is there once, and is not empty.
    explicit AddedTokens(std::vector<AddedToken> tokens);

    /// The sections of valid UTF-8, from left to right. Of tokens that begin at one place the longest is taken; one
    /// that is rejected as no single word is passed over whole.
    std::vector<Section> split(std::string_view text) const;

private:
    const AddedToken* token_at(std::string_view text, std::size_t at) const;

    std::array<std::vector<AddedToken>, 256> tokens_;  ///< by their first byte, the longest first
};

}  // namespace geom
