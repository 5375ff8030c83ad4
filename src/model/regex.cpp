#include "model/regex.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdint>

#include "core/error.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace geom {
namespace {

template <auto free>
struct Free {
    template <class T>
    void operator()(T* object) const noexcept {
        free(object);
    }
};
using CodeOwner = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchOwner = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using ContextOwner = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;

PCRE2_SPTR units_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string reason_of(int error) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return reinterpret_cast<const char*>(message.data());
}

}  // namespace

struct Regex::Code {
    CodeOwner code;
    std::string shown;
};

Regex::Regex(const std::string& pattern, bool literal, const std::string& shown) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    // As Ruby has it, ^ and $ stand at every line.
    const std::uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
    const ContextOwner context(pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    CodeOwner code(pcre2_compile(units_of(pattern), pattern.size(), options, &error, &offset, context.get()));
    if (code == nullptr) {
        throw Error(ExitCode::input, fmt::format("{}: byte {}: {}", shown, offset, reason_of(error)));
    }
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where it fails, matches are interpreted
    code_ = std::make_shared<const Code>(Code{std::move(code), shown});
}

std::vector<Regex::Span> Regex::matches(std::string_view text) const {
    const MatchOwner match(pcre2_match_data_create_from_pattern(code_->code.get(), nullptr));
    const auto search = [&](std::size_t from, std::uint32_t options) {
        return pcre2_match(code_->code.get(), units_of(text), text.size(), from, PCRE2_NO_UTF_CHECK | options,
                           match.get(), nullptr);
    };
    std::vector<Span> found;
    for (std::size_t at = 0; at <= text.size();) {
        int status = search(at, 0);
        if (status == PCRE2_ERROR_JIT_STACKLIMIT) status = search(at, PCRE2_NO_JIT);  // takes its memory from the heap
        if (status == PCRE2_ERROR_NOMATCH) break;
        if (status < 0) {
            throw Error(ExitCode::input, fmt::format("{}: cannot be matched from byte {} of a text on: {}",
                                                     code_->shown, at, reason_of(status)));
        }
        const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
        const Span span{bounds[0], bounds[1]};
        if (span.begin == span.end && !found.empty() && found.back().end == span.end) {
            do ++at;
            while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U);
            continue;
        }
        found.push_back(span);
        at = span.end;
    }
    return found;
}

}  // namespace geom
