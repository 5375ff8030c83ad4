#include "app/version.hpp"

namespace geom {

std::string program_commit() { return GEOM_COMMIT; }

std::string program_version() {
    const std::string commit = program_commit();
    return "geom-mpi " GEOM_VERSION + (commit.empty() ? "" : " (commit " + commit + ")");
}

}  // namespace geom
