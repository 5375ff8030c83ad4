#include "model/tokenizer_fields.hpp"

#include <fmt/format.h>

#include "core/error.hpp"

namespace geom {

void refuse_tokenizer(const std::string& shown, const std::string& found) {
    throw Error(
        ExitCode::input,
        fmt::format("{}: {}; read are byte-level BPE tokenizers as Qwen2, Qwen3 and Llama-3 have them: for this "
                    "one give the ids that its own program makes, with --token-ids FILE",
                    shown, found));
}

void fail_tokenizer(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, fmt::format("{}: {}; the file is damaged, or no tokenizer.json", shown, reason));
}

const Json* find_field(const Json& object, const char* key, const std::string& shown) {
    if (!object.is_object()) {
        fail_tokenizer(shown, fmt::format("{} where an object with '{}' was expected", kind_of(object), key));
    }
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
}

const Json& field(const Json& object, const char* key, const std::string& shown) {
    const Json* found = find_field(object, key, shown);
    if (found == nullptr) fail_tokenizer(shown, fmt::format("'{}' is missing", key));
    return *found;
}

std::string text_field(const Json& object, const char* key, const std::string& shown) {
    const Json& found = field(object, key, shown);
    if (!found.is_string()) fail_tokenizer(shown, fmt::format("'{}' is {}, not a string", key, kind_of(found)));
    return found.get<std::string>();
}

std::string text_field(const Json& object, const char* key, const std::string& shown, const std::string& otherwise) {
    return find_field(object, key, shown) == nullptr ? otherwise : text_field(object, key, shown);
}

bool flag_field(const Json& object, const char* key, const std::string& shown, bool otherwise) {
    const Json* found = find_field(object, key, shown);
    if (found == nullptr) return otherwise;
    if (!found->is_boolean()) {
        fail_tokenizer(shown, fmt::format("'{}' is {}, not true or false", key, kind_of(*found)));
    }
    return found->get<bool>();
}

const Json& array_field(const Json& object, const char* key, const std::string& shown) {
    const Json& found = field(object, key, shown);
    if (!found.is_array()) fail_tokenizer(shown, fmt::format("'{}' is {}, not an array", key, kind_of(found)));
    return found;
}

}  // namespace geom
