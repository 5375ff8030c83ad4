#include "model/tokenizer.hpp"

#include <fmt/format.h>

#include <deque>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "checkpoint/input_file.hpp"
#include "core/error.hpp"
#include "model/tokenizer_fields.hpp"
#include "model/unicode.hpp"

namespace geom {
namespace {

constexpr std::int64_t largest_file = std::int64_t{1} << 27;

/// Of a Sequence of normalizers, all of them.
bool asks_for_nfc(const Json& entry, const std::string& shown) {
    if (entry.is_null()) return false;
    const std::string type = text_field(entry, "type", shown);
    if (type == "NFC") return true;
    if (type != "Sequence") refuse_tokenizer(shown, in_quotes(type));
    bool nfc = false;
    for (const Json& part : array_field(entry, "normalizers", shown)) nfc = asks_for_nfc(part, shown) || nfc;
    return nfc;
}

void append_ids(const Json& template_, const std::string& name, const std::string& shown,
                std::vector<std::int32_t>& ids) {
    const Json& token = field(field(template_, "special_tokens", shown), name.c_str(), shown);
    for (const Json& id : array_field(token, "ids", shown)) {
        ids.push_back(
            static_cast<std::int32_t>(json_integer(id, 0, INT32_MAX, shown + ": the id of " + in_quotes(name))));
    }
}

/// The ids that a TemplateProcessing puts before one text.
std::vector<std::int32_t> ids_before_text(const Json& template_, const std::string& shown) {
    std::vector<std::int32_t> ids;
    bool text_seen = false;
    for (const Json& piece : array_field(template_, "single", shown)) {
        const Json* special = find_field(piece, "SpecialToken", shown);
        if (special != nullptr && text_seen) refuse_tokenizer(shown, "a TemplateProcessing that appends tokens");
        if (special != nullptr) {
            append_ids(template_, text_field(*special, "id", shown), shown, ids);
        } else {
            field(piece, "Sequence", shown);
            if (text_seen) refuse_tokenizer(shown, "a TemplateProcessing that repeats the text");
            text_seen = true;
        }
    }
    return ids;
}

std::vector<std::int32_t> begin_tokens(const Json& entry, const std::string& shown) {
    if (entry.is_null()) return {};
    const std::string type = text_field(entry, "type", shown);
    if (type == "ByteLevel") return {};  // places in the text, not ids
    if (type == "TemplateProcessing") return ids_before_text(entry, shown);
    if (type != "Sequence") refuse_tokenizer(shown, in_quotes(type));
    std::vector<std::int32_t> ids;
    for (const Json& part : array_field(entry, "processors", shown)) {
        const std::vector<std::int32_t> before = begin_tokens(part, shown);
        ids.insert(ids.begin(), before.begin(), before.end());
    }
    return ids;
}

AddedToken read_added_token(const Json& entry, const std::string& shown) {
    AddedToken token;
    token.content = text_field(entry, "content", shown);
    const std::string what = fmt::format("{}: the id of {}", shown, in_quotes(token.content));
    token.id = static_cast<std::int32_t>(json_integer(field(entry, "id", shown), 0, INT32_MAX, what));
    token.single_word = flag_field(entry, "single_word", shown, false);
    token.lstrip = flag_field(entry, "lstrip", shown, false);
    token.rstrip = flag_field(entry, "rstrip", shown, false);
    return token;
}

/// The file's added tokens: those that are looked for in the text as it is, and those in its normalised form.
struct AddedTokenLists {
    std::vector<AddedToken> verbatim, normalised;
};

/// The tokenizers library numbers added tokens by the vocabulary, else in a row from its end on, whatever ids the file
/// gives: where the two differ it is not clear which of them the model was trained with.
AddedTokenLists read_added_tokens(const Json& entries, const Bpe& bpe, bool nfc_asked_for, const std::string& shown) {
    AddedTokenLists lists;
    std::set<std::string> contents;
    auto next = static_cast<std::int32_t>(bpe.size());
    for (const Json& entry : entries) {
        AddedToken token = read_added_token(entry, shown);
        if (token.content.empty()) continue;
        const std::string name = in_quotes(token.content);
        const auto known = bpe.find(token.content);
        const std::int32_t expected = known ? *known : next++;
        if (token.id != expected) {
            refuse_tokenizer(shown,
                             fmt::format("{} with the id {}, where the vocabulary and its place in the file make it "
                                         "{}",
                                         name, token.id, expected));
        }
        const bool normalised = flag_field(entry, "normalized", shown, true);
        if (normalised && nfc_asked_for) token.content = nfc(token.content);
        if (!contents.insert((normalised ? "n" : "v") + token.content).second) refuse_tokenizer(shown, name + " twice");
        (normalised ? lists.normalised : lists.verbatim).push_back(std::move(token));
    }
    return lists;
}

/// The members of tokenizer.json that are looked at; null where the file has none.
struct Members {
    std::optional<Bpe> bpe;
    Json added_tokens = Json::array(), normalizer, pre_tokenizer, post_processor;
};

Members read_members(const std::string& text, const std::string& shown) {
    Members members;
    parse_json_object(text, shown, [&](const std::string& name, const Json& value) {
        if (name == "model") members.bpe = Bpe::read(value, shown);
        if (name == "added_tokens") members.added_tokens = value;
        if (name == "normalizer") members.normalizer = value;
        if (name == "pre_tokenizer") members.pre_tokenizer = value;
        if (name == "post_processor") members.post_processor = value;
    });
    if (!members.bpe) fail_tokenizer(shown, "'model' is missing");
    return members;
}

}  // namespace

Tokenizer Tokenizer::read(const std::filesystem::path& path) {
    const std::string shown = path.string();
    Members members = read_members(read_text_file(path, largest_file), shown);
    const bool nfc_asked_for = asks_for_nfc(members.normalizer, shown + ": normalizer");
    AddedTokenLists added =
        read_added_tokens(members.added_tokens, *members.bpe, nfc_asked_for, shown + ": added_tokens");
    Tokenizer result(std::move(*members.bpe), PreTokenizer::read(members.pre_tokenizer, shown),
                     AddedTokens(std::move(added.verbatim)), AddedTokens(std::move(added.normalised)));
    result.begin_ = begin_tokens(members.post_processor, shown + ": post_processor");
    result.nfc_ = nfc_asked_for;
    return result;
}

/// What one encode() has made so far. Words come again and again: their ids are copied from where they stand.
struct Tokenizer::Words {
    std::vector<std::int32_t> ids;
    std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> seen;  ///< first id of a word, and behind
    std::deque<std::string> normalised;                                              ///< texts that `seen` points into

    void append(std::string_view word, const Bpe& bpe) {
        const std::size_t begin = ids.size();
        if (const auto at = seen.find(word); at != seen.end()) {
            for (std::size_t i = at->second.first; i < at->second.second; ++i) ids.push_back(ids[i]);
            return;
        }
        bpe.encode(word, ids);
        seen.emplace(word, std::pair(begin, ids.size()));
    }
};

void Tokenizer::encode_piece(std::string_view piece, Words& words) const {
    if (nfc_) piece = words.normalised.emplace_back(nfc(piece));
    for (const AddedTokens::Section& section : normalised_.split(piece)) {
        if (section.id >= 0) {
            words.ids.push_back(section.id);
            continue;
        }
        for (const std::string_view word : pre_tokenizer_.words(section.text)) words.append(word, bpe_);
    }
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const std::string& shown) const {
    if (const auto invalid = first_invalid_utf8(text)) {
        const std::string reason = "not UTF-8; the text is in another encoding, or damaged";
        throw Error(ExitCode::input, fmt::format("{}: byte {}: {}", shown, *invalid, reason));
    }
    Words words;
    words.ids = begin_;
    for (const AddedTokens::Section& section : verbatim_.split(text)) {
        if (section.id >= 0) {
            words.ids.push_back(section.id);
        } else {
            encode_piece(section.text, words);
        }
    }
    return std::move(words.ids);
}

Tokenizer tokenizer_of(const ModelFolder& model) {
    const std::filesystem::path file = model.folder / "tokenizer.json";
    if (!std::filesystem::exists(std::filesystem::symlink_status(file))) {
        throw Error(ExitCode::input, fmt::format("{}: is missing; {}, or give token ids, with --token-ids FILE",
                                                 file.string(), model.remedy));
    }
    check_inside(file, model.allowed_root);
    return Tokenizer::read(file);
}

}  // namespace geom
