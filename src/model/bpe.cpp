#include "model/bpe.hpp"

#include <fmt/format.h>

#include <limits>
#include <queue>
#include <utility>

#include "model/tokenizer_fields.hpp"

namespace geom {
namespace {

/// The letter, in UTF-8, that stands for a byte in the file: itself where it is printable in Latin-1, else the next one
/// from U+0100 on.
std::array<std::string, 256> letters_of_bytes() {
    std::array<std::string, 256> letters;
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool printable =
            (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
        const unsigned code = printable ? byte : next++;
        if (code < 0x80) {
            letters[byte] = static_cast<char>(code);
        } else {
            letters[byte] = {static_cast<char>(0xC0U | (code >> 6U)), static_cast<char>(0x80U | (code & 0x3FU))};
        }
    }
    return letters;
}

const std::array<std::string, 256>& byte_letters() {
    static const std::array<std::string, 256> letters = letters_of_bytes();
    return letters;
}

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
    return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32U) | static_cast<std::uint32_t>(right);
}

std::pair<std::string, std::string> merged_pair(const Json& entry, const std::string& shown) {
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
        return {entry[0].get<std::string>(), entry[1].get<std::string>()};
    }
    if (!entry.is_string()) fail_tokenizer(shown, "neither a string nor a pair of strings");
    const std::string& text = entry.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        fail_tokenizer(shown, in_quotes(text) + " is not two tokens with a space between");
    }
    return {text.substr(0, space), text.substr(space + 1)};
}

void refuse_affix(const Json& model, const char* key, const std::string& shown) {
    if (!text_field(model, key, shown, "").empty()) refuse_tokenizer(shown, fmt::format("BPE with {}", key));
}

}  // namespace

Bpe Bpe::read(const Json& model, const std::string& file) {
    const std::string shown = file + ": model";
    if (const std::string type = text_field(model, "type", shown, "BPE"); type != "BPE") {
        refuse_tokenizer(shown, in_quotes(type));
    }
    if (flag_field(model, "byte_fallback", shown, false)) refuse_tokenizer(shown, "BPE with byte_fallback");
    refuse_affix(model, "continuing_subword_prefix", shown);
    refuse_affix(model, "end_of_word_suffix", shown);
    if (const Json* dropout = find_field(model, "dropout", shown); dropout != nullptr && *dropout != 0.0) {
        refuse_tokenizer(shown, "BPE with dropout");
    }
    Bpe result;
    result.whole_words_first_ = flag_field(model, "ignore_merges", shown, false);
    result.read_vocabulary(field(model, "vocab", shown), shown);
    const Json& merges = array_field(model, "merges", shown);
    result.merges_.reserve(merges.size());
    std::int32_t rank = 0;
    for (const Json& entry : merges) {
        result.read_merge(entry, rank, fmt::format("{}: merge {}", shown, rank));
        ++rank;
    }
    return result;
}

void Bpe::read_vocabulary(const Json& entries, const std::string& shown) {
    if (!entries.is_object()) fail_tokenizer(shown, fmt::format("'vocab' is {}, not an object", kind_of(entries)));
    vocabulary_.reserve(entries.size());
    for (const auto& [token, id] : entries.items()) {
        const std::int64_t number =
            json_integer(id, 0, std::numeric_limits<std::int32_t>::max(), shown + ": the id of " + in_quotes(token));
        vocabulary_.emplace(token, static_cast<std::int32_t>(number));
    }
    for (std::size_t byte = 0; byte < 256; ++byte) {
        const auto id = find(byte_letters()[byte]);
        if (!id) refuse_tokenizer(shown, fmt::format("a vocabulary without the byte {:#04x}", byte));
        bytes_[byte] = *id;
    }
}

void Bpe::read_merge(const Json& entry, std::int32_t rank, const std::string& shown) {
    const auto [left, right] = merged_pair(entry, shown);
    const auto id_of = [&](const std::string& token) {
        const auto id = find(token);
        if (!id) fail_tokenizer(shown, in_quotes(token) + " is not in the vocabulary");
        return *id;
    };
    const std::uint64_t pair = pair_of(id_of(left), id_of(right));
    merges_[pair] = {rank, id_of(left + right)};  // listed twice, the later one counts, as in the tokenizers library
}

std::optional<std::int32_t> Bpe::find(const std::string& token) const {
    const auto at = vocabulary_.find(token);
    return at == vocabulary_.end() ? std::nullopt : std::optional(at->second);
}

const Bpe::Merge* Bpe::find_merge(std::int32_t left, std::int32_t right) const {
    const auto at = merges_.find(pair_of(left, right));
    return at == merges_.end() ? nullptr : &at->second;
}

/// A word while its tokens are merged: a linked list of them, and the merges that could be next.
class Bpe::Word {
public:
    Word(const Bpe& bpe, std::string_view bytes) : bpe_(bpe), tokens_(bytes.size()) {
        const int count = static_cast<int>(bytes.size());
        for (int i = 0; i < count; ++i) {
            tokens_[index(i)] = {bpe.bytes_[static_cast<unsigned char>(bytes[index(i)])], i - 1, i + 1};
        }
        end_ = count;
        for (int i = 0; i + 1 < count; ++i) consider(i);
    }

    void merge_all() {
        while (!candidates_.empty()) {
            const Candidate next = candidates_.top();
            candidates_.pop();
            if (still_there(next)) merge(next);
        }
    }

    void append_to(std::vector<std::int32_t>& ids) const {
        for (int i = 0; i < end_; i = tokens_[index(i)].next) ids.push_back(tokens_[index(i)].id);
    }

private:
    struct Token {
        std::int32_t id = 0;  ///< -1: merged into the one before
        int previous = 0, next = 0;
    };
    struct Candidate {
        std::int32_t rank = 0;
        int left = 0;
        std::int32_t id = 0;
        friend bool operator>(const Candidate& a, const Candidate& b) {
            return std::pair(a.rank, a.left) > std::pair(b.rank, b.left);
        }
    };

    static std::size_t index(int i) { return static_cast<std::size_t>(i); }

    const Merge* merge_at(int left) const {
        const Token& token = tokens_[index(left)];
        return token.next == end_ ? nullptr : bpe_.find_merge(token.id, tokens_[index(token.next)].id);
    }

    void consider(int left) {
        if (const Merge* merge = merge_at(left)) candidates_.push({merge->rank, left, merge->id});
    }

    /// Another merge may have taken one of the two since.
    bool still_there(const Candidate& candidate) const {
        if (tokens_[index(candidate.left)].id < 0) return false;
        const Merge* merge = merge_at(candidate.left);
        return merge != nullptr && merge->id == candidate.id;
    }

    void merge(const Candidate& candidate) {
        Token& left = tokens_[index(candidate.left)];
        Token& right = tokens_[index(left.next)];
        left.id = candidate.id;
        left.next = right.next;
        right.id = -1;
        if (left.next != end_) tokens_[index(left.next)].previous = candidate.left;
        if (left.previous >= 0) consider(left.previous);
        consider(candidate.left);
    }

    const Bpe& bpe_;
    std::vector<Token> tokens_;
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates_;
    int end_ = 0;
};

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
    if (whole_words_first_) {
        std::string token;
        for (const char byte : word) token += byte_letters()[static_cast<unsigned char>(byte)];
        if (const auto id = find(token)) {
            ids.push_back(*id);
            return;
        }
    }
    Word tokens(*this, word);
    tokens.merge_all();
    tokens.append_to(ids);
}

}  // namespace geom
