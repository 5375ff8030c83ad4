// Strict JSON for files that strangers wrote.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace geom {

using Json = nlohmann::json;

inline constexpr int max_json_depth = 64;
inline constexpr std::int64_t max_json_values = 8'000'000;

/// Parses one document. Throws Error(input) with `shown` (the file), line and column on malformed JSON, invalid UTF-8,
/// a NUL byte, a byte-order mark, anything after the document, duplicate keys, nesting beyond max_json_depth, numbers
/// that overflow a double, more than max_json_values values.
Json parse_json(std::string_view text, const std::string& shown);

/// The same for a document that has to be an object. Calls member(name, value) for each of its members in the order of
/// the file and keeps one value at a time, so a large document costs no more memory than its largest member.
using JsonMember = std::function<void(const std::string& name, const Json& value)>;
void parse_json_object(std::string_view text, const std::string& shown, const JsonMember& member);

/// `text` in single quotes for a message: everything but printable ASCII escaped, long text cut.
std::string in_quotes(std::string_view text);

/// "an object", "a string", ... for messages.
std::string_view kind_of(const Json& value) noexcept;

/// The value as an integer in [smallest, largest]; Error(input) "SHOWN: WHAT is ..., expected ..." otherwise.
std::int64_t json_integer(const Json& value, std::int64_t smallest, std::int64_t largest, const std::string& what);

}  // namespace geom
