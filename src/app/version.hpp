// Which program this is.
#pragma once

#include <string>

namespace geom {

/// The commit it was built from, 12 hex digits, with "+" after it when the source had been changed; empty when it was
/// not built from a repository.
std::string program_commit();

/// "geom-mpi 0.5.0 (commit 0123456789ab)".
std::string program_version();

}  // namespace geom
