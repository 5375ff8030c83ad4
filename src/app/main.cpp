// Wiring, and the only place where exceptions end: what all ranks agreed on ends the program orderly, anything else
// names its rank and aborts the job.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "app/commands.hpp"
#include "app/stop_signals.hpp"
#include "core/error.hpp"
#include "core/host_name.hpp"
#include "mpi/agreement.hpp"
#include "mpi/communicator.hpp"
#include "mpi/environment.hpp"
#include "output/hdf5_file.hpp"

namespace {

// Messages name what may be long: paths, lists of shards. Beyond 2000 bytes the middle is left out.
std::string shortened(const std::string& message) {
    constexpr std::size_t most = 2000, kept = 950;
    if (message.size() <= most) return message;
    return fmt::format("{} ... [{} bytes left out] ... {}", message.substr(0, kept), message.size() - 2 * kept,
                       message.substr(message.size() - kept));
}

[[noreturn]] void end_job(int rank, const std::string& phase, const char* reason, int code) {
    fmt::print(stderr, "geom-mpi: rank {} on {}, {}: {}\n", rank, geom::host_name(), phase, shortened(reason));
    std::fflush(stderr);
    ::alarm(20);  // should the abort itself hang
    geom::MpiEnvironment::abort(code);
}

int guarded(const geom::Options& options, const geom::Communicator& world, geom::Phases& phases) {
    geom::listen_for_stop_signals();
    std::signal(SIGXFSZ, SIG_IGN);  // a write beyond a limit on file sizes is an error like any other
    try {
        return geom::run_command(options, world, phases);
    } catch (const geom::AgreedError& error) {
        if (world.rank() == 0) fmt::print(stderr, "geom-mpi: error: {}\n", shortened(error.what()));
        return static_cast<int>(error.code());
    } catch (const geom::Error& error) {
        end_job(world.rank(), phases.current(), error.what(), static_cast<int>(error.code()));
    } catch (const std::exception& error) {
        end_job(world.rank(), phases.current(), error.what(), static_cast<int>(geom::ExitCode::internal));
    }
}

}  // namespace

int main(int argc, char** argv) {
    geom::Phases phases;
    const geom::Options options = geom::parse_options(argc, argv);
    try {
        geom::start_hdf5();
        geom::MpiEnvironment environment(argc, argv, options.run.deadline);
        geom::Communicator world = geom::Communicator::world();
        world.set_deadline(std::chrono::duration<double>(options.run.deadline));
        environment.started();
        world.set_emergency_exit([&](const geom::Error& error) {
            end_job(world.rank(), phases.current(), error.what(), static_cast<int>(error.code()));
        });
        return guarded(options, world, phases);
    } catch (const geom::Error& error) {  // MPI did not start, or not as the launcher meant it
        fmt::print(stderr, "geom-mpi: error: {}\n", shortened(error.what()));
        return static_cast<int>(error.code());
    }
}
