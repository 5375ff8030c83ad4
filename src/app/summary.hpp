// What a run says about itself: attributes of the result file, the page at the end, the JSON object.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/options.hpp"
#include "app/phases.hpp"
#include "app/survey.hpp"
#include "measures/analysis.hpp"
#include "output/records.hpp"
#include "output/result_file.hpp"

namespace geom {

/// The facts of a run, over all ranks.
struct RunRecord {
    std::string command_line;
    std::vector<std::string> measures;
    std::string backend;
    std::string path;                         ///< of products, HeadBlockFormat::path
    std::string exchange;                     ///< of head blocks, Collectives::name
    std::vector<std::string> hosts, devices;  ///< one a rank
    std::int64_t ranks = 1, passes = 1;
    std::int64_t bytes_read = 0, flops = 0, planned_bytes = 0, peak_bytes = 0;
    std::int64_t planned_device_bytes = 0, peak_device_bytes = 0;  ///< of a GPU; 0 without
    std::uint64_t digest = 0;                                      ///< of the weights this run has read
    std::int64_t resumed_units = 0;                                ///< taken from the journal
    std::vector<PhaseTime> phases;                                 ///< of phase_names()
};

/// The phases of /run, in the order of the data path; "total" last.
std::vector<std::string> phase_names(const std::vector<std::string>& measures);

/// The result's full schema: the measures' variables, analysis' as far as its inputs are there, and /run's.
Schema with_run_and_analysis(const Schema& schema, const RunRecord& run);

std::vector<Attribute> root_attributes(const RunRecord& run, const Survey& survey);

/// An identity as one line of text, for the attribute that tells whether a result is of the same run.
std::string identity_text(const Identity& identity);

/// /run's numbers.
std::vector<Slab> run_slabs(const RunRecord& run, const Schema& schema);

/// Prints the summary to stdout, or to stderr when stdout is the JSON object's, and writes that where --json says.
/// Throws Error(output) when the JSON file cannot be written.
void speak(const RunOptions& options, const RunRecord& run, const Survey& survey, const Cosines& cosines);

}  // namespace geom
