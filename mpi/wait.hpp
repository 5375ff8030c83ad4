// How this program waits for others, whatever carries their messages: it never blocks in a library.
#pragma once

#include <functional>

#include "mpi/communicator.hpp"

namespace geom {

/// Asks `done` until it says yes, without pause at first and ever less often later. Meanwhile it takes in signs of
/// progress and calls the idle callback. Throws Error(internal) when the deadline passes, naming the ranks that don't
/// answer, and what `done` throws; see Communicator::set_deadline. `what` names the awaited in the message.
void wait_until(const Communicator& communicator, const std::function<bool()>& done, const char* what);

}  // namespace geom
