// The machine this process runs on.
#pragma once

#include <string>

namespace geom {

/// As the system calls it; "unknown-host" when it does not say.
std::string host_name();

}  // namespace geom
