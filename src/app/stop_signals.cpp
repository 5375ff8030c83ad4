#include "app/stop_signals.hpp"

#include <csignal>
#include <initializer_list>

namespace geom {

namespace {

volatile std::sig_atomic_t received = 0;

extern "C" void remember(int signal) { received = signal; }

}  // namespace

void listen_for_stop_signals() {
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
        struct sigaction action = {};
        action.sa_handler = &remember;
        // The handler goes after its first call for signals that end a program; USR1 may come again, from every
        // launcher.
        action.sa_flags = SA_RESTART | (signal == SIGUSR1 ? 0 : static_cast<int>(SA_RESETHAND));
        ::sigaction(signal, &action, nullptr);
    }
}

int stop_signal() noexcept { return static_cast<int>(received); }

const char* signal_name(int signal) noexcept {
    switch (signal) {
        case SIGTERM:
            return "SIGTERM";
        case SIGINT:
            return "SIGINT";
        case SIGUSR1:
            return "SIGUSR1";
        default:
            return "a signal";
    }
}

}  // namespace geom
