// Work of a device in the order in which it was issued. Both seams share it, so that what moves between ranks is
// ordered with kernels without either side knowing the other. The host's queue has nothing to wait for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/buffer.hpp"

namespace geom {

class Queue {
public:
    virtual ~Queue() = default;

    /// Where the memory lies that this queue's work reads and writes: host or device.
    virtual Space space() const noexcept = 0;

    /// Host memory from which, and to which, copy() runs at the device's full rate. Throws Error(usage) when memory is
    /// short.
    virtual Buffer allocate_staging(std::int64_t bytes) = 0;

    /// Issues a copy between any two places, of the host (staging memory) or the device. Staging memory may be touched
    /// again after wait().
    virtual void copy(std::byte* to, const std::byte* from, std::int64_t bytes) = 0;

    /// Returns when everything issued so far is done. Throws Error(internal) with the device's words when it failed.
    virtual void wait() = 0;

    /// The device library's own handle (a cudaStream_t); null for the host's queue.
    virtual void* native() const noexcept = 0;
};

/// Copies at once.
Queue& host_queue();

}  // namespace geom
