#include "checkpoint/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.hpp"

namespace geom {
namespace {

constexpr std::size_t longest_quote = 160;

/// Walks over the text and leaves behind how far the parser has come.
class Cursor {
public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    Cursor() = default;
    Cursor(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}

    reference operator*() const { return *at_; }
    Cursor& operator++() {
        *furthest_ = ++at_;
        return *this;
    }
    Cursor operator++(int) {
        Cursor before = *this;
        ++*this;
        return before;
    }
    friend bool operator==(const Cursor& a, const Cursor& b) { return a.at_ == b.at_; }

private:
    const char* at_ = nullptr;
    const char** furthest_ = nullptr;
};

/// What is wrong, without nlohmann's prefix and without the text it quotes, which may be as long as the file.
std::string reason_of(std::string_view what) {
    if (const auto id = what.find("] "); id != std::string_view::npos) what.remove_prefix(id + 2);
    if (what.starts_with("parse error at")) {
        if (const auto colon = what.find(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
    }
    if (what.starts_with("number overflow")) return "a number that does not fit a double";
    what = what.substr(0, what.find("; last read"));
    std::string reason;
    for (const char c : what.substr(0, longest_quote)) reason += (c >= ' ' && c < 0x7f) ? c : '?';
    return reason;
}

/// nlohmann's event interface: builds values, and refuses what its own parser lets pass.
class Events {
public:
    using number_integer_t = Json::number_integer_t;
    using number_unsigned_t = Json::number_unsigned_t;
    using number_float_t = Json::number_float_t;
    using string_t = Json::string_t;
    using binary_t = Json::binary_t;

    Events(std::string_view text, const std::string& shown, const JsonMember* member)
        : text_(text), shown_(shown), member_(member), furthest_(text.data()) {}

    Json take() {
        const Cursor first(text_.data(), &furthest_), last(text_.data() + text_.size(), &furthest_);
        if (text_.starts_with("\xef\xbb\xbf")) fail("a byte-order mark before the JSON text");
        // nlohmann takes a NUL byte for the end of the text.
        if (const auto nul = text_.find('\0'); nul != std::string_view::npos) {
            furthest_ += nul + 1;
            fail("a NUL byte");
        }
        Json::sax_parse(first, last, this);
        return std::move(root_);
    }

    bool null() { return scalar(nullptr); }
    bool boolean(bool value) { return scalar(value); }
    bool number_integer(number_integer_t value) { return scalar(value); }
    bool number_unsigned(number_unsigned_t value) { return scalar(value); }
    bool number_float(number_float_t value, const string_t&) { return scalar(value); }
    bool string(string_t& value) { return scalar(std::move(value)); }
    bool binary(binary_t&) { fail("binary data"); }

    bool start_object(std::size_t) { return open(Json::object()); }
    bool start_array(std::size_t) { return open(Json::array()); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }

    bool key(string_t& name) {
        const auto [at, fresh] = open_.back()->emplace(name, nullptr);
        if (!fresh) fail("the key " + in_quotes(name) + " stands twice in one object");
        slot_ = &at.value();
        if (open_.size() == 1) top_key_ = name;
        return true;
    }

    bool parse_error(std::size_t, const std::string&, const Json::exception& error) { fail(reason_of(error.what())); }

private:
    [[noreturn]] void fail(const std::string& reason) const {
        const std::string_view read = text_.substr(0, static_cast<std::size_t>(furthest_ - text_.data()));
        const auto line = std::count(read.begin(), read.end(), '\n') + 1;
        const auto column = std::max<std::size_t>(1, read.size() - (read.rfind('\n') + 1));
        throw Error(ExitCode::input,
                    fmt::format("{}: line {}, column {}: {}; the file is damaged, cut short, or not what its name says",
                                shown_, line, column, reason));
    }

    Json* place(Json&& value) {
        if (++values_ > max_json_values) fail(fmt::format("more than {} values", max_json_values));
        if (open_.empty()) {
            if (member_ != nullptr && !value.is_object()) fail("an object was expected");
            root_ = std::move(value);
            return &root_;
        }
        Json& parent = *open_.back();
        if (parent.is_array()) {
            parent.push_back(std::move(value));
            return &parent.back();
        }
        *slot_ = std::move(value);
        return slot_;
    }

    bool scalar(Json&& value) {
        finish(place(std::move(value)));
        return true;
    }

    bool open(Json&& container) {
        if (static_cast<int>(open_.size()) >= max_json_depth) fail(fmt::format("nesting beyond {}", max_json_depth));
        open_.push_back(place(std::move(container)));
        return true;
    }

    bool close() {
        Json* done = open_.back();
        open_.pop_back();
        finish(done);
        return true;
    }

    /// Hands a complete member of the outermost object over and keeps only its name, against duplicates.
    void finish(Json* value) {
        if (member_ == nullptr || open_.size() != 1) return;
        (*member_)(top_key_, *value);
        *value = nullptr;
        values_ = 0;
    }

    std::string_view text_;
    const std::string& shown_;
    const JsonMember* member_;
    const char* furthest_;
    Json root_;
    std::vector<Json*> open_;  // containers around the next value, the outermost first
    Json* slot_ = nullptr;     // where the value of the last key goes
    std::string top_key_;
    std::int64_t values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& shown) { return Events(text, shown, nullptr).take(); }

void parse_json_object(std::string_view text, const std::string& shown, const JsonMember& member) {
    Events(text, shown, &member).take();
}

std::string in_quotes(std::string_view text) {
    std::string result = "'";
    for (const char c : text.substr(0, longest_quote)) {
        if (c >= ' ' && c < 0x7f) {
            result += c;
        } else {
            result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        }
    }
    result += "'";
    if (text.size() > longest_quote) result += fmt::format("... ({} bytes)", text.size());
    return result;
}

std::string_view kind_of(const Json& value) noexcept {
    switch (value.type()) {
        case Json::value_t::null:
            return "null";
        case Json::value_t::object:
            return "an object";
        case Json::value_t::array:
            return "an array";
        case Json::value_t::string:
            return "a string";
        case Json::value_t::boolean:
            return "true or false";
        case Json::value_t::number_float:
            return "a number with a fraction or beyond 64 bits";
        default:
            return "a number";
    }
}

std::int64_t json_integer(const Json& value, std::int64_t smallest, std::int64_t largest, const std::string& what) {
    if (!value.is_number_integer()) {
        throw Error(ExitCode::input, fmt::format("{} is {}, but has to be an integer", what, kind_of(value)));
    }
    const bool beyond =
        value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
    if (beyond || value.get<std::int64_t>() < smallest || value.get<std::int64_t>() > largest) {
        throw Error(ExitCode::input,
                    fmt::format("{} is {}, but has to be from {} to {}", what, value.dump(), smallest, largest));
    }
    return value.get<std::int64_t>();
}

}  // namespace geom
