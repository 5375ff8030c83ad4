#include "app/fault.hpp"

#include <fmt/format.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <stdexcept>

#include "core/error.hpp"

namespace geom {

void maybe_fail(const std::string& phase, int rank) {
    const char* fault = std::getenv("GEOM_MPI_FAULT");
    if (fault == nullptr) return;
    static std::map<std::string, int> visits;
    const std::string asked = fault, place = fmt::format(":{}:{}:{}", phase, rank, visits[phase]++);
    if (asked == "error" + place) throw Error(ExitCode::numerics, "a fault that was asked for");
    if (asked == "exception" + place) throw std::runtime_error("a fault that was asked for");
    if (asked == "abort" + place) std::abort();
    if (asked == "kill" + place) ::raise(SIGKILL);
    if (asked == "stop" + place) ::raise(SIGSTOP);
}

}  // namespace geom
