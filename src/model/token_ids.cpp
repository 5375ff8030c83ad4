#include "model/token_ids.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "checkpoint/input_file.hpp"
#include "checkpoint/json.hpp"
#include "core/error.hpp"
#include "output/hdf5_file.hpp"

namespace geom {
namespace {

constexpr std::int64_t largest_text = std::int64_t{1} << 30;
constexpr std::int64_t most_ids = std::int64_t{1} << 27;
constexpr std::string_view hdf5_signature = "\x89HDF\r\n\x1a\n";

[[noreturn]] void fail(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, shown + ": " + reason);
}

std::int32_t checked(double id, std::int64_t vocabulary, const std::string& place) {
    if (!(id >= 0.0 && id < static_cast<double>(vocabulary))) {
        fail(place, fmt::format("the id {} is not in the model's vocabulary of {}", id, vocabulary));
    }
    return static_cast<std::int32_t>(id);
}

bool is_token_ids(const std::string& dataset) { return dataset == "token_ids" || dataset.ends_with("/token_ids"); }

/// The dataset to read: of those that could be meant the one by the name, else the only one.
std::string chosen_dataset(const Hdf5File& file, const std::string& shown) {
    std::vector<std::string> named, others;
    for (const std::string& dataset : file.datasets()) {
        if (file.shape(dataset).size() != 1 || !file.holds_integers(dataset)) continue;
        (is_token_ids(dataset) ? named : others).push_back(dataset);
    }
    const auto& candidates = named.empty() ? others : named;
    if (candidates.size() == 1) return candidates.front();
    fail(shown, fmt::format("{} one-dimensional datasets of integers{}, expected one named token_ids, or one in all",
                            candidates.size(), named.empty() ? "" : " named token_ids"));
}

std::vector<std::int32_t> read_hdf5(const std::filesystem::path& path, std::int64_t vocabulary) {
    const Hdf5File file = Hdf5File::open(path, Hdf5File::Access::read);
    const std::string dataset = chosen_dataset(file, path.string());
    const std::string shown = fmt::format("{}: {}", path.string(), dataset);
    if (file.shape(dataset).front() > most_ids) fail(shown, fmt::format("more than {} ids", most_ids));
    std::vector<std::int32_t> ids;
    for (const double id : file.read_numbers(dataset)) {
        ids.push_back(checked(id, vocabulary, fmt::format("{}[{}]", shown, ids.size())));
    }
    return ids;
}

std::string_view without_blanks(std::string_view line) {
    constexpr std::string_view blanks = " \t\r";
    const auto begin = std::min(line.find_first_not_of(blanks), line.size());
    line.remove_prefix(begin);
    return line.substr(0, line.find_last_not_of(blanks) + 1);
}

std::vector<std::int32_t> read_lines(const std::filesystem::path& path, std::int64_t vocabulary) {
    const std::string text = read_text_file(path, largest_text);
    std::vector<std::int32_t> ids;
    std::int64_t number = 0;
    for (std::string_view rest = text; !rest.empty();) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        const std::string_view line = without_blanks(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
        ++number;
        if (line.empty()) continue;
        const std::string place = fmt::format("{}: line {}", path.string(), number);
        std::int64_t id = 0;
        const auto [stopped, error] = std::from_chars(line.data(), line.data() + line.size(), id);
        if (error != std::errc() || stopped != line.data() + line.size()) {
            fail(place, in_quotes(line) + " is no integer; expected is one token id a line, or an HDF5 file");
        }
        ids.push_back(checked(static_cast<double>(id), vocabulary, place));
    }
    return ids;
}

bool is_hdf5(const std::filesystem::path& path) {
    const InputFile file(path);
    std::string start(std::min<std::size_t>(hdf5_signature.size(), static_cast<std::size_t>(file.bytes())), '\0');
    file.read(0, std::as_writable_bytes(std::span(start)));
    return start == hdf5_signature;
}

}  // namespace

std::vector<std::int32_t> read_token_ids(const std::filesystem::path& file, std::int64_t vocabulary) {
    std::vector<std::int32_t> ids;
    try {
        ids = is_hdf5(file) ? read_hdf5(file, vocabulary) : read_lines(file, vocabulary);
    } catch (const Error& error) {  // HDF5's are of results
        throw Error(ExitCode::input, error.what(), error.where());
    }
    if (ids.empty()) fail(file.string(), "holds no token ids");
    return ids;
}

}  // namespace geom
