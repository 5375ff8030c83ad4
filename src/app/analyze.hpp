// geom-mpi analyze: the tables of a finished result.
#pragma once

#include "app/options.hpp"
#include "app/result_view.hpp"
#include "output/tables.hpp"

namespace geom {

/// All tables of a result, and what it is of.
TableSet table_set(const ResultView& view, const std::string& file);

/// Local. Prints the tables, or writes them into a folder, which is made where it is missing: tables.txt, tables.md or
/// tables.json, or a file NAME.csv a table. Throws Error(input) when the file is not a finished result, Error(usage)
/// when the anchor or the head is not in it, Error(output) when the tables cannot be written.
void analyze(const AnalyzeOptions& options);

}  // namespace geom
