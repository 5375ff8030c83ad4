#include "mpi/environment.hpp"

#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <string>

#include "core/error.hpp"

namespace geom {

namespace {

// How many tasks the launcher says it started; 1 when there is no launcher.
int launched_tasks() {
    const char* step = std::getenv("SLURM_STEP_ID");
    const char* in_batch_script = std::getenv("SLURM_STEP_NUM_TASKS");
    if (step != nullptr && in_batch_script != nullptr) return std::atoi(in_batch_script);
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
        if (const char* value = std::getenv(name)) return std::atoi(value);
    }
    return 1;
}

// MPI's own start and end wait for all ranks without a limit of time.
void give_up(int /*signal*/) {
    constexpr char text[] =
        "geom-mpi: MPI did not start, or did not end, within --deadline: some rank is lost or stopped\n";
    [[maybe_unused]] const auto wrote = ::write(STDERR_FILENO, text, sizeof text - 1);
    ::_exit(static_cast<int>(ExitCode::internal));
}

unsigned whole_seconds(double seconds) { return static_cast<unsigned>(std::clamp(std::ceil(seconds), 1.0, 1e9)); }

}  // namespace

MpiEnvironment::MpiEnvironment(int& argc, char**& argv, double deadline) : deadline_(whole_seconds(deadline)) {
    std::signal(SIGALRM, give_up);
    ::alarm(deadline_);
    int provided = MPI_THREAD_SINGLE;
    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        throw Error(ExitCode::internal, "MPI could not be started");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int size = 1;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const int tasks = launched_tasks();
    if (tasks > 1 && size == 1) {
        MPI_Finalize();
        throw Error(
            ExitCode::usage,
            fmt::format("the launcher started {} tasks, but MPI sees one: every task would do the whole work and "
                        "write the same file; under Slurm start the program with `srun --mpi=pmix`",
                        tasks));
    }
}

MpiEnvironment::~MpiEnvironment() {
    if (std::uncaught_exceptions() != 0) return;
    ::alarm(deadline_);
    MPI_Finalize();
    ::alarm(0);
}

void MpiEnvironment::started() noexcept { ::alarm(0); }

std::string MpiEnvironment::library() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
    int length = 0;
    MPI_Get_library_version(text, &length);
    const std::string all(text, static_cast<std::size_t>(length));
    return all.substr(0, all.find_first_of(",\n"));
}

void MpiEnvironment::abort(int code) noexcept {
    int running = 0;
    MPI_Initialized(&running);
    if (running != 0) MPI_Abort(MPI_COMM_WORLD, code);
    std::_Exit(code);
}

}  // namespace geom
