// From a text to token ids, as the tokenizers library does it for byte-level BPE: Qwen2, Qwen3, Llama-3 and their like.
//
//   text ──added tokens (normalized: false)──▶ pieces ──NFC, if the file says so──▶ ──added tokens (normalized:
//   true)──▶ pieces ──split pattern──▶ words ──their bytes, merged in pairs──▶ ids; the post-processor's begin token
//   before them
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/hub_cache.hpp"
#include "model/added_tokens.hpp"
#include "model/bpe.hpp"
#include "model/pre_tokenizer.hpp"

namespace geom {

class Tokenizer {
public:
    /// Reads a tokenizer.json. Throws Error(input) when it is missing, malformed, or has anything that would make other
    /// ids than those made here (Unigram, WordPiece, byte_fallback, Metaspace, other normalizers, ...): the message
    /// names it, and --token-ids FILE as the way out.
    static Tokenizer read(const std::filesystem::path& path);

    /// The ids of the whole text, begin tokens first; nothing but those for an empty text. May run on several threads.
    /// Throws Error(input) with the name of the text and the byte offset of what is not UTF-8.
    std::vector<std::int32_t> encode(std::string_view text, const std::string& shown = "the text") const;

private:
    struct Words;

    Tokenizer(Bpe bpe, PreTokenizer pre_tokenizer, AddedTokens verbatim, AddedTokens normalised)
        : bpe_(std::move(bpe)),
          pre_tokenizer_(std::move(pre_tokenizer)),
          verbatim_(std::move(verbatim)),
          normalised_(std::move(normalised)) {}

    void encode_piece(std::string_view piece, Words& words) const;

    Bpe bpe_;
    PreTokenizer pre_tokenizer_;
    AddedTokens verbatim_, normalised_;  ///< looked for before and after NFC
    std::vector<std::int32_t> begin_;    ///< tokens before every text
    bool nfc_ = false;
};

/// The tokenizer.json of a model's folder. Throws Error(input) that names --token-ids FILE where it is missing.
Tokenizer tokenizer_of(const ModelFolder& model);

}  // namespace geom
