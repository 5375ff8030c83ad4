// Members of tokenizer.json, and what is said about those that this program does not act on.
#pragma once

#include <string>

#include "checkpoint/json.hpp"

namespace geom {

/// Throws Error(input): the file has `found`, and a tokenizer with it is not among those that are read.
[[noreturn]] void refuse_tokenizer(const std::string& shown, const std::string& found);

/// Throws Error(input): the file is not what a tokenizer.json is.
[[noreturn]] void fail_tokenizer(const std::string& shown, const std::string& reason);

/// object[key]; nullptr where there is none, or null. Error(input) when `object` is no object.
const Json* find_field(const Json& object, const char* key, const std::string& shown);

/// The same, of one type; the ones without `otherwise` have to be there. Error(input) names the key.
const Json& field(const Json& object, const char* key, const std::string& shown);
std::string text_field(const Json& object, const char* key, const std::string& shown);
std::string text_field(const Json& object, const char* key, const std::string& shown, const std::string& otherwise);
bool flag_field(const Json& object, const char* key, const std::string& shown, bool otherwise);
const Json& array_field(const Json& object, const char* key, const std::string& shown);

}  // namespace geom
