// What can go wrong, and the exit code it ends the program with.
#pragma once

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

/// A place in the source, as std::source_location, which clang before 16 does not have.
class SourceLocation {
public:
    static constexpr SourceLocation current(const char* file = __builtin_FILE(), int line = __builtin_LINE(),
                                            const char* function = __builtin_FUNCTION()) noexcept {
        SourceLocation here;
        here.file_ = file;
        here.line_ = line;
        here.function_ = function;
        return here;
    }
    constexpr const char* file_name() const noexcept { return file_; }
    constexpr int line() const noexcept { return line_; }
    constexpr const char* function_name() const noexcept { return function_; }

private:
    const char* file_ = "";
    int line_ = 0;
    const char* function_ = "";
};

/// The one exception of the program. The message names file, tensor, numbers, likely cause and remedy; it stands
/// alone, without the place in the source, which is kept for the log.
class Error : public std::runtime_error {
public:
    Error(ExitCode code, const std::string& message, SourceLocation where = SourceLocation::current())
        : std::runtime_error(message), code_(code), where_(where) {}

    ExitCode code() const noexcept { return code_; }
    const SourceLocation& where() const noexcept { return where_; }

private:
    ExitCode code_;
    SourceLocation where_;
};

}  // namespace geom
