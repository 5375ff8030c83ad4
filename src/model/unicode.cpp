#include "model/unicode.hpp"

#include <utf8proc.h>

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core/error.hpp"

namespace geom {
namespace {

constexpr auto is_continuation = [](unsigned char byte) { return (byte & 0xC0U) == 0x80U; };

bool is_white_space(std::string_view character) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
    switch (character.size()) {
        case 1:
            return byte(0) == ' ' || (byte(0) >= 0x09 && byte(0) <= 0x0D);
        case 2:
            return character == "\u0085" || character == "\u00A0";
        case 3:
            return character == "\u1680" || (character >= "\u2000" && character <= "\u200A") || character == "\u2028" ||
                   character == "\u2029" || character == "\u202F" || character == "\u205F" || character == "\u3000";
        default:
            return false;
    }
}

/// Below U+0300 every character is its own NFC, whatever stands beside it; the first byte of all others is larger.
bool is_below_combining_marks(std::string_view text) noexcept {
    for (const char c : text) {
        if (static_cast<unsigned char>(c) >= 0xCC) return false;
    }
    return true;
}

}  // namespace

std::size_t character_bytes(std::string_view text, std::size_t at) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (first < 0xC2 || first > 0xF4 || text.size() - at < size) return 0;
    for (std::size_t i = 1; i < size; ++i) {
        if (!is_continuation(byte(i))) return 0;
    }
    const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
    const bool surrogate = first == 0xED && byte(1) > 0x9F;
    const bool beyond = first == 0xF4 && byte(1) > 0x8F;
    return overlong || surrogate || beyond ? 0 : size;
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept {
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t bytes = character_bytes(text, at);
        if (bytes == 0) return at;
        at += bytes;
    }
    return std::nullopt;
}

std::string_view first_character(std::string_view text) noexcept {
    return text.empty() ? text : text.substr(0, character_bytes(text, 0));
}

std::string_view last_character(std::string_view text) noexcept {
    if (text.empty()) return text;
    std::size_t begin = text.size() - 1;
    while (begin > 0 && is_continuation(static_cast<unsigned char>(text[begin]))) --begin;
    return text.substr(begin);
}

std::string nfc(std::string_view text) {
    if (is_below_combining_marks(text)) return std::string(text);
    std::uint8_t* composed = nullptr;
    const utf8proc_ssize_t bytes =
        utf8proc_map(reinterpret_cast<const std::uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                     &composed, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const std::unique_ptr<std::uint8_t, decltype(&std::free)> owner(composed, &std::free);
    if (bytes < 0) throw Error(ExitCode::internal, std::string("normalising a text failed: ") + utf8proc_errmsg(bytes));
    return {reinterpret_cast<const char*>(composed), static_cast<std::size_t>(bytes)};
}

std::size_t leading_white_space(std::string_view text) noexcept {
    std::string_view rest = text;
    while (is_white_space(first_character(rest))) rest.remove_prefix(first_character(rest).size());
    return text.size() - rest.size();
}

std::size_t trailing_white_space(std::string_view text) noexcept {
    std::string_view rest = text;
    while (is_white_space(last_character(rest))) rest.remove_suffix(last_character(rest).size());
    return text.size() - rest.size();
}

}  // namespace geom
