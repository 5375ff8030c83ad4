// What Unicode says about a text in UTF-8.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace geom {

/// Bytes of the character at `at` < text.size(); 0 when they are not UTF-8: a stray or missing continuation, an
/// overlong form, a surrogate, a value beyond U+10FFFF.
std::size_t character_bytes(std::string_view text, std::size_t at) noexcept;

/// Offset of the first byte of what is not UTF-8.
std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept;

/// Of valid UTF-8; "" of nothing.
std::string_view first_character(std::string_view text) noexcept;
std::string_view last_character(std::string_view text) noexcept;

/// Normalization Form C of valid UTF-8.
std::string nfc(std::string_view text);

/// Bytes of white space (the property White_Space) that valid UTF-8 begins and ends with.
std::size_t leading_white_space(std::string_view text) noexcept;
std::size_t trailing_white_space(std::string_view text) noexcept;

}  // namespace geom
