// The command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/range.hpp"

namespace geom {

struct RunOptions {
    std::string model;
    std::string revision;
    std::string family;
    std::vector<std::string> measures;  ///< every measure of this build when empty
    std::string output;                 ///< MODEL.geom.h5 when empty
    std::string json;                   ///< a file, or "-"
    std::string backend = "auto";
    std::string progress = "auto";  ///< core/progress.hpp, progress_style()
    std::optional<Range> layers;
    std::optional<Range> block;  ///< layers that variation is summarised over; `layers` when not given
    std::int64_t top_k = 8;
    std::int64_t anchor = -1;
    std::int64_t memory_budget = 0;  ///< bytes a rank; 0: what the node gives
    int threads = 0;                 ///< a rank; 0: what the node gives
    int ranks = 0;                   ///< that info plans for; 0: those that are there
    double deadline = 600.0;
    bool overwrite = false;
    bool dry_run = false;
    bool resume = false;
    bool fresh = false;
    bool add = false;
    bool legacy = false;
    bool folded = false;
    bool quiet = false;
    // of the measure residual
    std::string calibration;    ///< a text; the program's own when none of the three is given
    std::string token_ids;      ///< instead
    std::string hidden_states;  ///< instead, without a forward pass
    std::int64_t max_tokens = 2048;
    std::string phases;  ///< a file; the default ones when empty
    std::string forward_dtype = "auto";
    bool keep_first = false;
    bool save_hidden = false;
};

struct SynthOptions {
    std::string shape;
    std::string folder;
};

struct TokensOptions {
    std::string model;
    std::string revision;
    std::string file = "-";  ///< the text; "-": stdin
};

struct BenchOptions {
    std::string shape = "qwen3-0.6b";  ///< as after synth:
    std::string model;                 ///< a checkpoint on disk, for the part that loads
    std::string json;                  ///< a file, or "-"
    std::vector<std::string> parts;    ///< all that have what they need when empty
    std::string backend = "auto";
    std::int64_t repeat = 5;
    int threads = 0;
};

struct SelfcheckOptions {
    std::string model;
    std::string revision;
    int threads = 0;
};

/// A head by the names that people give: a decoder layer's number, and the head's in it.
struct HeadName {
    std::int64_t layer = 0, head = 0;
};

struct AnalyzeOptions {
    std::string file;
    std::optional<std::int64_t> anchor;  ///< the file's own when not given
    std::optional<HeadName> head;
    std::optional<Range> block;  ///< the file's own when not given
    std::string format = "text";
    std::string folder;  ///< "": to stdout
};

enum class Command : std::uint8_t { run, info, analyze, synth, tokens, bench, selfcheck, nothing };

struct Options {
    Command command = Command::run;
    RunOptions run;
    AnalyzeOptions analyze;
    SynthOptions synth;
    TokensOptions tokens;
    BenchOptions bench;
    SelfcheckOptions selfcheck;
    std::string command_line;  ///< as typed, for the record
    int exit_code = 0;         ///< of Command::nothing: --help, --version or a mistake
    std::string message;       ///< of Command::nothing: what to print
};

/// Parses arguments (and the file named by --config). Never exits: what CLI11 would print is in `message`.
Options parse_options(int argc, const char* const* argv);

/// "8GiB", "8G" (the same), "512MiB", "8GB" (8e9), "1.5e9", "4096" to bytes, in any case. Throws Error(usage) naming
/// the option.
std::int64_t parse_bytes(const std::string& option, const std::string& text);

/// "A:B", half-open. Throws Error(usage) naming the option.
Range parse_range(const std::string& option, const std::string& text);

/// "L:H". Throws Error(usage) naming the option.
HeadName parse_head(const std::string& option, const std::string& text);

}  // namespace geom
