// A place for weights that the host fills and a backend's verbs read. On a GPU it is pinned memory and its copy on the
// device; on a processor both are one, and nothing has to move.
//
//   thread that reads     wait_sent | fill host() | send ...copy...   | wait_sent | fill host() | send ...
//   caller of the verbs                             | receive | verbs read data() | release |
#pragma once

#include <cstddef>
#include <cstdint>

namespace geom {

class InputBuffer {
public:
    virtual ~InputBuffer() = default;

    virtual std::byte* host() const noexcept = 0;        ///< where the host writes
    virtual const std::byte* data() const noexcept = 0;  ///< the same bytes where verbs read them

    /// Returns when host() may be written: what was sent before has left it.
    virtual void wait_sent() = 0;
    /// Starts to move the first `bytes` of host() to data(), after the verbs issued before the last release().
    virtual void send(std::int64_t bytes) = 0;
    /// Verbs issued from now on see what was sent.
    virtual void receive() = 0;
    /// Verbs issued until now are the last that read data().
    virtual void release() = 0;
};

}  // namespace geom
