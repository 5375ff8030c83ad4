#include "app/print_tokens.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>

#include "checkpoint/input_file.hpp"
#include "core/error.hpp"
#include "model/tokenizer.hpp"

namespace geom {
namespace {

constexpr std::int64_t largest_text = std::int64_t{1} << 30;

std::string read_text(const std::string& file) {
    if (file != "-") return read_text_file(file, largest_text);
    return {std::istreambuf_iterator<char>(std::cin), {}};
}

}  // namespace

void print_tokens(const TokensOptions& options) {
    const Tokenizer tokenizer = tokenizer_of(resolve_model(options.model, options.revision));
    fmt::memory_buffer lines;
    for (const std::int32_t id :
         tokenizer.encode(read_text(options.file), options.file == "-" ? "stdin" : options.file)) {
        fmt::format_to(std::back_inserter(lines), "{}\n", id);
    }
    if (std::fwrite(lines.data(), 1, lines.size(), stdout) != lines.size() || std::fflush(stdout) != 0) {
        throw Error(ExitCode::output, fmt::format("cannot write the ids to stdout: {}", std::strerror(errno)));
    }
}

}  // namespace geom
