// Messages to oneself: no body of Collectives sends them, all copy them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "mpi/collectives.hpp"

namespace geom {

struct OwnCopy {
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    std::int64_t bytes = 0;
};

/// The messages of an exchange that rank `self` sends to itself, matched in order, less the empty ones. Throws
/// Error(internal) unless every one has its counterpart; to be called before anything is on its way.
std::vector<OwnCopy> own_copies(int self, std::span<const Message> sends, std::span<const Message> receives);

}  // namespace geom
