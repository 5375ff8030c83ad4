// MPI from start to end of the program. Made once, in main.
#pragma once

#include <string>

namespace geom {

class MpiEnvironment {
public:
    /// Starts MPI so that the main thread alone calls it. The process ends with ExitCode::internal when `deadline`
    /// seconds pass before started() is called, or in the destructor: MPI itself waits for a lost rank without end.
    /// Throws Error(usage) when a launcher started several tasks and MPI sees only one (wrong --mpi).
    MpiEnvironment(int& argc, char**& argv, double deadline);
    ~MpiEnvironment();  ///< finalises, unless an exception that not all ranks share is on its way (then main aborts)
    MpiEnvironment(const MpiEnvironment&) = delete;
    MpiEnvironment& operator=(const MpiEnvironment&) = delete;

    /// From here on waits have deadlines of their own.
    static void started() noexcept;

    /// "Open MPI v4.1.4".
    static std::string library();

    /// Ends every rank of the job with `code`; never returns.
    [[noreturn]] static void abort(int code) noexcept;

private:
    unsigned deadline_;  // s
};

}  // namespace geom
