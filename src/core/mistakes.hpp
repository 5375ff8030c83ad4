// What was probably meant by words on the command line that mean nothing.
#pragma once

#include <string>
#include <vector>

namespace geom {

/// The one of `names` that is fewest edits (a letter put in, left out, changed, or swapped with the next) away from
/// `word`; empty when none is near, which is at most a third of its letters, and at most three.
std::string nearest_name(const std::string& word, const std::vector<std::string>& names);

/// One sentence about arguments that were not expected. `options` and `commands`: names that exist ("--model", "info").
std::string about_unexpected(const std::vector<std::string>& arguments, const std::vector<std::string>& options,
                             const std::vector<std::string>& commands);

}  // namespace geom
