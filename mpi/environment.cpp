#include "mpi/environment.hpp"

#include <fmt/format.h>
#include <mpi.h>

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

}  // namespace

MpiEnvironment::MpiEnvironment(int& argc, char**& argv) {
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
    if (std::uncaught_exceptions() == 0) MPI_Finalize();
}

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
