#include "app/phases.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace geom {

void Phases::add(const std::string& name, double seconds) {
    const auto found =
        std::find_if(seconds_.begin(), seconds_.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == seconds_.end()) {
        seconds_.emplace_back(name, seconds);
    } else {
        found->second += seconds;
    }
}

std::vector<PhaseTime> Phases::over_ranks(const std::vector<std::string>& names,
                                          const Communicator& communicator) const {
    std::string mine;
    for (const std::string& name : names) {
        const auto found =
            std::find_if(seconds_.begin(), seconds_.end(), [&](const auto& entry) { return entry.first == name; });
        const double seconds = name == "total" ? total() : found == seconds_.end() ? 0.0 : found->second;
        mine.append(reinterpret_cast<const char*>(&seconds), sizeof seconds);
    }
    std::vector<PhaseTime> times;
    const std::vector<std::string> all = communicator.all_gather(mine);
    for (std::size_t i = 0; i < names.size(); ++i) {
        PhaseTime time{names[i], std::numeric_limits<double>::infinity(), 0.0, 0.0};
        for (const std::string& rank : all) {
            double seconds = 0.0;
            std::memcpy(&seconds, rank.data() + i * sizeof seconds, sizeof seconds);
            time.min = std::min(time.min, seconds);
            time.max = std::max(time.max, seconds);
            time.mean += seconds / static_cast<double>(all.size());
        }
        times.push_back(time);
    }
    return times;
}

}  // namespace geom
