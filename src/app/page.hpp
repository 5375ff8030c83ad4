// What a run says at its end, read from the file alone: a page for people, an object for programs.
#pragma once

#include <filesystem>
#include <string>

namespace geom {

/// Prints the page of a result to stdout, or to stderr when stdout is the JSON object's (`json` is "-"), and writes
/// that where `json` says ("": nowhere). Throws Error(input) when the file cannot be read, Error(output) when the JSON
/// object cannot be written.
void print_summary(const std::filesystem::path& file, const std::string& json);

/// `text` to stdout and `object` to where `json` says; with "-" the object goes to stdout and the text to stderr.
/// Throws Error(output) when either cannot be written.
void print_both(const std::string& text, const std::string& object, const std::string& json);

}  // namespace geom
