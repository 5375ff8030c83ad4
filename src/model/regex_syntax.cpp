#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "model/regex.hpp"
#include "model/tokenizer_fields.hpp"

namespace geom {
namespace {

class Translation {
public:
    Translation(const std::string& pattern, const std::string& shown) : rest_(pattern), shown_(shown) {}

    std::string result() {
        while (!rest_.empty()) {
            if (rest_.front() == '\\') {
                escape();
            } else if (rest_.front() == '[') {
                set();
            } else if (rest_.front() == '(') {
                group();
            } else if (rest_.front() == '{') {
                repeat();
            } else {
                copy(1);
            }
        }
        return std::move(result_);
    }

private:
    [[noreturn]] void refuse(std::size_t bytes) const {
        refuse_tokenizer(shown_, fmt::format("{} in a pattern", in_quotes(rest_.substr(0, bytes))));
    }

    void copy(std::size_t bytes) {
        result_ += rest_.substr(0, bytes);
        rest_.remove_prefix(std::min(bytes, rest_.size()));
    }

    void put(std::size_t bytes, std::string_view instead) {
        result_ += instead;
        rest_.remove_prefix(bytes);
    }

    /// [...], in which Ruby has sets and intersections, and PCRE2 takes them for characters.
    void set() {
        copy(rest_.starts_with("[^") ? 2 : 1);
        while (!rest_.empty() && rest_.front() != ']') {
            if (rest_.front() == '[' || rest_.starts_with("&&")) refuse(2);
            if (rest_.front() == '\\') {
                escape();
            } else {
                copy(1);
            }
        }
        copy(1);
    }

    void group() {
        for (const std::string_view known : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"}) {
            if (rest_.starts_with(known)) return copy(known.size());
        }
        if (rest_.starts_with("(?") || rest_.starts_with("(*")) refuse(4);
        copy(1);
    }

    /// {n}, {n,}, {n,m}: one more sign behind them means something else in Ruby, as does {,m}.
    void repeat() {
        const std::size_t bytes = rest_.find_first_not_of("0123456789,", 1);
        if (bytes == std::string_view::npos || bytes < 2 || rest_[bytes] != '}' || rest_[1] == ',') refuse(4);
        if (rest_.substr(bytes + 1).find_first_of("+?*") == 0) refuse(bytes + 2);
        copy(bytes + 1);
    }

    void escape() {
        const char what = rest_.size() > 1 ? rest_[1] : '\0';
        if (what == 's') {  // PCRE2's \s has U+180E too
            put(2, "\\p{White_Space}");
        } else if (what == 'S') {
            put(2, "\\P{White_Space}");
        } else if (what == 'p' || what == 'P') {
            property();
        } else if (std::string_view("dDrntf").find(what) != std::string_view::npos ||
                   std::ispunct(static_cast<unsigned char>(what)) != 0) {
            copy(2);
        } else {
            refuse(2);
        }
    }

    /// A category of one or two letters, or else a script, which PCRE2 extends unless it is told not to.
    void property() {
        const std::size_t end = rest_.find('}');
        if (end == std::string_view::npos || !rest_.substr(2).starts_with("{")) refuse(4);
        const std::string_view sign = rest_.substr(3).starts_with("^") ? "^" : "";
        const std::size_t begin = 3 + sign.size();
        const std::string_view name = rest_.substr(begin, end - begin);
        if (name.empty() || !std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalpha(c); })) {
            refuse(end + 1);
        }
        put(end + 1, fmt::format("\\{}{{{}{}{}}}", rest_[1], sign, name.size() > 2 ? "sc:" : "", name));
    }

    std::string_view rest_;
    const std::string& shown_;
    std::string result_;
};

}  // namespace

std::string pcre2_pattern(const std::string& pattern, const std::string& shown) {
    return Translation(pattern, shown).result();
}

}  // namespace geom
