#include "mpi/own_copies.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace geom {

std::vector<OwnCopy> own_copies(int self, std::span<const Message> sends, std::span<const Message> receives) {
    const auto own = [self](const Message& message) { return message.peer == self; };
    std::vector<OwnCopy> copies;
    auto receive = receives.begin();
    for (const Message& send : sends) {
        if (!own(send)) continue;
        receive = std::find_if(receive, receives.end(), own);
        if (receive == receives.end() || receive->bytes != send.bytes) {
            throw Error(ExitCode::internal, "a message to oneself has no counterpart of its size");
        }
        if (send.bytes > 0) copies.push_back({receive->data, send.data, send.bytes});
        ++receive;
    }
    if (std::any_of(receive, receives.end(), own)) {
        throw Error(ExitCode::internal, "a message from oneself was never sent");
    }
    return copies;
}

}  // namespace geom
