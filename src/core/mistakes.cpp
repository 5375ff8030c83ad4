#include "core/mistakes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace geom {

namespace {

/// Optimal string alignment distance.
std::size_t edits_between(const std::string& a, const std::string& b) {
    std::vector<std::vector<std::size_t>> edits(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) {
        for (std::size_t j = 0; j <= b.size(); ++j) {
            if (i == 0 || j == 0) {
                edits[i][j] = i + j;
                continue;
            }
            const std::size_t changed = edits[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            edits[i][j] = std::min({changed, edits[i - 1][j] + 1, edits[i][j - 1] + 1});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                edits[i][j] = std::min(edits[i][j], edits[i - 2][j - 2] + 1);
        }
    }
    return edits[a.size()][b.size()];
}

}  // namespace

std::string nearest_name(const std::string& word, const std::vector<std::string>& names) {
    constexpr std::size_t longest = 64;
    if (word.size() > longest) return {};
    std::string nearest;
    std::size_t fewest = std::min<std::size_t>(3, word.size() / 3) + 1;
    for (const std::string& name : names) {
        const std::size_t edits = edits_between(word, name);
        if (edits >= fewest) continue;
        fewest = edits;
        nearest = name;
    }
    return nearest;
}

std::string about_unexpected(const std::vector<std::string>& arguments, const std::vector<std::string>& options,
                             const std::vector<std::string>& commands) {
    const auto option = std::find_if(arguments.begin(), arguments.end(),
                                     [](const std::string& argument) { return argument.starts_with('-'); });
    if (option != arguments.end()) {
        const std::string name = option->substr(0, option->find('='));
        const std::string meant = nearest_name(name, options);
        return fmt::format("there is no option {:.64}{}", name,
                           meant.empty() ? "" : fmt::format(": is {} meant?", meant));
    }
    const std::string& word = arguments.front();
    if (const std::string meant = nearest_name(word, commands); !meant.empty())
        return fmt::format("there is no command {:.64}: is {} meant?", word, meant);
    if (word.ends_with(".h5"))
        return fmt::format("{:.256} is not expected here: -o {:.256} writes a result, analyze {:.256} shows one", word,
                           word, word);
    return fmt::format("{:.256} is not expected here: a model is given as --model {:.256}", word, word);
}

}  // namespace geom
