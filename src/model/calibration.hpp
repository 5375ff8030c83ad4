// The tokens that a forward pass goes over: the user's text, the user's token ids, or the program's own text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.hpp"

namespace geom {

struct CalibrationRequest {
    std::filesystem::path text;       ///< --calibration; at most one of the two files is named
    std::filesystem::path token_ids;  ///< --token-ids
    std::int64_t max_tokens = 2048;   ///< at least 1; a begin token counts
};

struct CalibrationTokens {
    std::vector<std::int32_t> ids;  ///< at least one, each in [0, vocabulary), the tokenizer's begin token first
    std::string source;             ///< for messages and the record: a file's name, "the program's own text", ...
    bool truncated = false;         ///< there were more than max_tokens
};

/// Reads files; not collective, and the same on every rank that sees the same files.
/// - token_ids: read_token_ids() (token_ids.hpp). Taken as they are: no begin token is added.
/// - text: the file's, as it stands, one sequence; prompts are its paragraphs, with the blank lines between them.
/// - neither: default_text(); for a synthetic model max_tokens ids drawn by its generator.
/// Throws Error(input) with the file and its byte or line: missing, empty or blank, invalid UTF-8, an id that is not in
/// the vocabulary, a tokenizer that is missing or not read (the message then names --token-ids), and a text for a
/// synthetic model, which has no tokenizer.
CalibrationTokens read_calibration(const Checkpoint& checkpoint, const CalibrationRequest& request);

/// The program's own text: prompts of many kinds (facts, arithmetic, code, fiction, dialogue, verse, other languages),
/// separated by blank lines; more than 2048 tokens with any tokenizer of these models.
std::string_view default_text() noexcept;

}  // namespace geom
