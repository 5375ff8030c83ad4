// The tokens that a forward pass goes over: the user's text, the user's token ids, or the project's own text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
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
/// - token_ids: a text file with one integer a line, or (by its first bytes) an HDF5 file with a 1-D dataset of
/// integers
///   named token_ids, or with one such dataset in all. Taken as they are: no begin token is added.
/// - text: paragraphs separated by blank lines are prompts; they are joined by one blank line into one sequence and
///   encoded by the checkpoint's tokenizer.json.
/// - neither: the program's own text in the same way; for a synthetic model max_tokens ids drawn by its generator.
/// Throws Error(input) with the file and its byte or line: missing, empty or blank, invalid UTF-8, an id that is not in
/// the vocabulary, a tokenizer that is missing or not read (the message then names --token-ids); Error(usage) for a
/// synthetic model with text, which has no tokenizer.
CalibrationTokens read_calibration(const Checkpoint& checkpoint, const CalibrationRequest& request);

}  // namespace geom
