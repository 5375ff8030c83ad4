// What public verbs check before a body is called.
#pragma once

#include <string>

#include "core/error.hpp"

namespace geom {

/// Throws Error(internal), "VERB: WHAT", where `holds` is false.
inline void require(bool holds, const char* verb, const char* what) {
    if (!holds) throw Error(ExitCode::internal, std::string(verb) + ": " + what);
}

}  // namespace geom
