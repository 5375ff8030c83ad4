// Byte-level byte-pair encoding: a word's bytes are tokens, and neighbours that are listed as a pair are merged, the
// pair that stands first in the list first, the leftmost where it occurs twice.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/json.hpp"

namespace geom {

class Bpe {
public:
    /// Reads the `model` of tokenizer.json: type BPE, merges as "a b" or as ["a", "b"], ignore_merges.
    /// Throws Error(input) that names other types, dropout, byte_fallback, affixes of subwords, a vocabulary without
    /// all 256 bytes, a merge of or into what is no token.
    static Bpe read(const Json& model, const std::string& shown);

    /// Appends the tokens of one word, any bytes.
    void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

    /// The id of a token as the file spells it (each byte as a letter), without added tokens.
    std::optional<std::int32_t> find(const std::string& token) const;
    std::int64_t size() const noexcept { return static_cast<std::int64_t>(vocabulary_.size()); }

private:
    struct Merge {
        std::int32_t rank = 0, id = 0;  ///< place in the list; the token that takes the pair's place
    };
    class Word;

    void read_vocabulary(const Json& entries, const std::string& shown);
    void read_merge(const Json& entry, std::int32_t rank, const std::string& shown);
    const Merge* find_merge(std::int32_t left, std::int32_t right) const;

    std::unordered_map<std::string, std::int32_t> vocabulary_;
    std::unordered_map<std::uint64_t, Merge> merges_;  ///< by the pair's ids
    std::array<std::int32_t, 256> bytes_{};            ///< the token of each byte
    bool whole_words_first_ = false;                   ///< ignore_merges: a word that is a token is that token
};

}  // namespace geom
