// What can go wrong, and the exit code it ends the program with.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace geom {

/// Exit codes of the program (README, "Exit codes").
enum class ExitCode : int {
    done = 0,
    usage = 2,      ///< unknown flag or measure, budget too small, no device, wrong launcher
    input = 3,      ///< missing or malformed checkpoint
    numerics = 4,   ///< NaN or infinity in weights, no convergence
    output = 5,     ///< result exists, cannot be written, disk full
    internal = 70,  ///< a bug, a lost peer, a passed deadline
    stopped = 75,   ///< stopped by a signal; a journal allows to resume
};

/// The one exception of the program. The message names file, tensor, numbers, likely cause and remedy; it stands
/// alone, without the place in the source, which is kept for the log.
class Error : public std::runtime_error {
public:
    Error(ExitCode code, const std::string& message, std::source_location where = std::source_location::current())
        : std::runtime_error(message), code_(code), where_(where) {}

    ExitCode code() const noexcept { return code_; }
    const std::source_location& where() const noexcept { return where_; }

private:
    ExitCode code_;
    std::source_location where_;
};

}  // namespace geom
