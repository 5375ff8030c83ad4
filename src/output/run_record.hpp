// What a run says about itself: the attributes of the result file and its group /run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/range.hpp"
#include "output/journal.hpp"
#include "output/records.hpp"
#include "output/result_file.hpp"

namespace geom {

/// Seconds of a phase, over ranks.
struct PhaseTime {
    std::string name;
    double min = 0.0, mean = 0.0, max = 0.0;
};

/// The facts of a run, over all ranks.
struct RunRecord {
    std::string program_version, command_line;
    std::string program_commit;         ///< "" when it is not known
    std::vector<std::string> tensors;   ///< "FAMILY NAME" of a layer and the model, with "{layer}" and "{expert}"
    std::vector<std::string> versions;  ///< of libraries: "mpi Open MPI v4.1.4"
    // of the model
    std::string model, revision, commit, config, fingerprint, dtype;
    std::uint64_t seed = 0;  ///< of made-up weights
    std::int64_t model_layers = 0, heads = 0, hidden = 0;
    std::int64_t group_size = 1;        ///< query heads that share a key head in every layer
    std::int64_t anchor = -1;           ///< as asked for
    Range layers;                       ///< of the model, that were looked at
    Range block;                        ///< of these layers, over which variation is summarised
    std::vector<std::string> measures;  ///< in the file, in its order
    std::vector<std::string> left_out;  ///< measures that run unasked, but not on this model: "NAME: why"
    Identity identity;
    // of the machine
    std::string backend;
    std::string path;                         ///< of products, HeadBlockFormat::path
    std::string exchange;                     ///< of head blocks, Collectives::name
    std::vector<std::string> hosts, devices;  ///< one a rank
    std::int64_t ranks = 1;
    // of the work
    std::int64_t passes = 1, bytes_read = 0, flops = 0;
    std::int64_t planned_bytes = 0, peak_bytes = 0;
    std::int64_t planned_device_bytes = 0, peak_device_bytes = 0;  ///< of a GPU; 0 without
    std::uint64_t digest = 0;                  ///< of the weights that the numbers come from, but for copied_measures
    std::vector<std::string> copied_measures;  ///< taken from an earlier result
    std::vector<PhaseTime> phases;
};

/// Scales and variables of /run. `phases` names its phases.
Schema run_schema(const std::vector<std::string>& phases, bool device);

std::vector<Attribute> root_attributes(const RunRecord& run);

/// An identity as one line of text, for the attribute that tells whether a result is of the same run.
std::string identity_text(const Identity& identity);

/// What identity_text() was made of.
Identity identity_of_text(const std::string& text);

/// The numbers of run_schema(), for phases in that order.
std::vector<Slab> run_slabs(const RunRecord& run, const Schema& schema);

}  // namespace geom
