// A failure that one rank foresees becomes everybody's before the next collective operation.
#pragma once

#include <optional>
#include <string>

#include "core/error.hpp"
#include "mpi/communicator.hpp"

namespace geom {

/// Thrown on all ranks alike: rank 0 prints it, everyone ends orderly with the code.
class AgreedError : public Error {
public:
    using Error::Error;
};

/// Collective: `local` is this rank's failure, if it has one. When any rank has one, throws the lowest such rank's as
/// AgreedError on all; the message names the rank and its host when the ranks did not all fail alike.
void agree(const Communicator& communicator, const std::optional<Error>& local);

/// Runs f on every rank, then agrees on what it threw. Anything but Error passes through.
template <class F>
void agree_on(const Communicator& communicator, F&& f) {
    std::optional<Error> failure;
    try {
        f();
    } catch (const AgreedError&) {
        throw;
    } catch (const Error& error) {
        failure = error;
    }
    agree(communicator, failure);
}

}  // namespace geom
