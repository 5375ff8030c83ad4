#include "model/calibration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "checkpoint/input_file.hpp"
#include "checkpoint/synthetic.hpp"
#include "core/error.hpp"
#include "model/token_ids.hpp"
#include "model/tokenizer.hpp"
#include "model/unicode.hpp"

namespace geom {
namespace {

constexpr std::int64_t largest_text = std::int64_t{1} << 26;

[[noreturn]] void fail(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, shown + ": " + reason);
}

/// A tokenizer may know more tokens than the model has embeddings for.
void check_ids(const std::vector<std::int32_t>& ids, std::int64_t vocabulary, const std::string& source) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] < vocabulary) continue;
        fail(source,
             fmt::format("token {} has the id {}, but the model's vocabulary is of {}; its tokenizer.json belongs "
                         "to another model",
                         i, ids[i], vocabulary));
    }
}

std::vector<std::int32_t> encoded(const Checkpoint& checkpoint, std::string_view text, const std::string& source) {
    if (checkpoint.folder() == nullptr) {
        fail(checkpoint.name(), "has no tokenizer for a text; give ids, with --token-ids FILE, or neither");
    }
    if (leading_white_space(text) == text.size()) fail(source, "holds no text");
    const Tokenizer tokenizer = tokenizer_of(*checkpoint.folder());
    auto ids = tokenizer.encode(text, source);
    check_ids(ids, checkpoint.config().vocabulary, source);
    return ids;
}

CalibrationTokens all_tokens(const Checkpoint& checkpoint, const CalibrationRequest& request) {
    const ModelConfig& config = checkpoint.config();
    if (!request.token_ids.empty()) {
        return {read_token_ids(request.token_ids, config.vocabulary), request.token_ids.string()};
    }
    if (!request.text.empty()) {
        const std::string source = request.text.string();
        return {encoded(checkpoint, read_text_file(request.text, largest_text), source), source};
    }
    if (checkpoint.folder() == nullptr) {
        return {synthetic_tokens(checkpoint.seed(), config.vocabulary, request.max_tokens), "random tokens"};
    }
    const std::string source = "the program's own text";
    return {encoded(checkpoint, default_text(), source), source};
}

}  // namespace

CalibrationTokens read_calibration(const Checkpoint& checkpoint, const CalibrationRequest& request) {
    if (request.max_tokens < 1) {
        throw Error(ExitCode::usage, fmt::format("--max-tokens {}: at least one is needed", request.max_tokens));
    }
    CalibrationTokens tokens = all_tokens(checkpoint, request);
    tokens.truncated = std::ssize(tokens.ids) > request.max_tokens;
    if (tokens.truncated) tokens.ids.resize(static_cast<std::size_t>(request.max_tokens));
    return tokens;
}

}  // namespace geom
