// SIGTERM, SIGINT and SIGUSR1 ask a run to end orderly: the unit at hand is finished or dropped, what is done is in the
// journal, and the program ends with code 75.
#pragma once

namespace geom {

/// Installs the handlers. A second signal of the kind ends the process at once.
void listen_for_stop_signals();

/// The signal that has arrived, or 0.
int stop_signal() noexcept;

/// "SIGTERM", ...
const char* signal_name(int signal) noexcept;

}  // namespace geom
