// What a result says, in words: for the page that ends a run, and as numbers for its JSON object. Every number is one
// of the file's.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "output/result_file.hpp"

namespace geom {

/// Lines that begin with the name of what was measured; empty where no measure of heads of several layers ran.
std::string findings_text(const ResultReader& file);

/// The same numbers by their names in the file; null where they are not numbers, empty where there are none.
nlohmann::ordered_json findings_object(const ResultReader& file);

}  // namespace geom
