#include "core/terminal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace geom {

namespace {

constexpr int usual_columns = 80;

int columns_of(int descriptor) {
    struct winsize size {};
    return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : usual_columns;
}

// The standard error of the launcher, where this process is a child of one on the same machine.
int columns_of_launcher() {
    if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return 0;
    const std::string path = fmt::format("/proc/{}/fd/2", ::getppid());
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return 0;
    const int columns = ::isatty(descriptor) == 1 ? columns_of(descriptor) : 0;
    ::close(descriptor);
    return columns;
}

}  // namespace

int terminal_columns() {
    const char* kind = std::getenv("TERM");
    if (kind == nullptr || *kind == '\0' || std::string(kind) == "dumb") return 0;
    return ::isatty(STDERR_FILENO) == 1 ? columns_of(STDERR_FILENO) : columns_of_launcher();
}

}  // namespace geom
