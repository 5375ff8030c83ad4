// MPI from start to end of the program. Made once, in main.
#pragma once

#include <string>

namespace geom {

class MpiEnvironment {
public:
    /// Starts MPI so that the main thread alone calls it.
    /// Throws Error(usage) when a launcher started several tasks and MPI sees only one (wrong --mpi).
    MpiEnvironment(int& argc, char**& argv);
    ~MpiEnvironment();  ///< finalises, unless an exception that not all ranks share is on its way (then main aborts)
    MpiEnvironment(const MpiEnvironment&) = delete;
    MpiEnvironment& operator=(const MpiEnvironment&) = delete;

    /// "Open MPI v4.1.4".
    static std::string library();

    /// Ends every rank of the job with `code`; never returns.
    [[noreturn]] static void abort(int code) noexcept;
};

}  // namespace geom
