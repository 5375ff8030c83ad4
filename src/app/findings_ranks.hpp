// What the end of a run says of effective ranks: of heads' operators, and of weight matrices.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "output/result_file.hpp"

namespace geom {

/// Lines about heads/eff_rank and spectra/eff_rank, with a sentence of what they mean; empty where neither is there.
std::string rank_findings_text(const ResultReader& file);

/// The same numbers: adds "heads" and "spectra" to `object` where they are there. No NaN.
void add_rank_findings(nlohmann::ordered_json& object, const ResultReader& file);

}  // namespace geom
