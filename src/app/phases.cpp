#include "app/phases.hpp"

#include <algorithm>

namespace geom {

void Phases::add(const std::string& name, double seconds) {
    const auto found = std::find_if(seconds_.begin(), seconds_.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == seconds_.end()) {
        seconds_.emplace_back(name, seconds);
    } else {
        found->second += seconds;
    }
}

std::vector<PhaseTime> Phases::over_ranks(const Communicator& communicator) const {
    auto mine = seconds_;
    mine.emplace_back("total", total());
    std::vector<PhaseTime> times;
    for (const auto& [name, seconds] : mine) {
        times.push_back({name, communicator.all_reduce_min(seconds), communicator.all_reduce_sum(seconds) / communicator.size(),
                         communicator.all_reduce_max(seconds)});
    }
    return times;
}

}  // namespace geom
