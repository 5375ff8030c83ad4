#include "mpi/agreement.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/host_name.hpp"

namespace geom {

void agree(const Communicator& communicator, const std::optional<Error>& local) {
    const std::int64_t mine = local ? communicator.rank() : communicator.size();
    const std::int64_t first = communicator.all_reduce_min(mine);
    if (first == communicator.size()) return;
    const bool everyone = communicator.all_reduce_sum(std::int64_t{local ? 1 : 0}) == communicator.size();
    std::string text;
    if (mine == first) {
        text = fmt::format("{} {}", static_cast<int>(local->code()), local->what());
        // Told apart only when it is one rank's own trouble: a missing model is nobody's in particular.
        if (!everyone) text += fmt::format(" [rank {} on {}]", communicator.rank(), host_name());
    }
    text = communicator.broadcast(text, static_cast<int>(first));
    const std::size_t space = text.find(' ');
    throw AgreedError(static_cast<ExitCode>(std::stoi(text.substr(0, space))), text.substr(space + 1));
}

}  // namespace geom
