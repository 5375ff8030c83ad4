#include "output/weights_digest.hpp"

#include <fmt/format.h>

#include <cstring>
#include <iterator>

#include "core/error.hpp"

namespace geom {

void WeightsDigest::add(const RowsRead& rows) {
    std::map<std::int64_t, Rows>& there = tensors_[rows.tensor];
    auto at = there.upper_bound(rows.begin);
    if (at != there.begin() && std::prev(at)->second.end > rows.begin) --at;
    if (at != there.end() && at->first <= rows.begin && at->second.end >= rows.end) {
        if (at->first != rows.begin || at->second.end != rows.end || at->second.digest == rows.digest) return;
        throw Error(ExitCode::input,
                    fmt::format("tensor {}: rows {} to {} are not what they were when units in the journal were "
                                "computed from them: the checkpoint was changed; start anew with --fresh",
                                rows.tensor, rows.begin, rows.end - 1));
    }
    while (at != there.end() && at->first < rows.end) {
        if (at->first < rows.begin || at->second.end > rows.end)
            throw Error(ExitCode::internal, fmt::format("tensor {}: rows {} to {} overlap others in the digest",
                                                        rows.tensor, rows.begin, rows.end - 1));
        at = there.erase(at);
    }
    there[rows.begin] = {rows.end, rows.digest};
}

std::uint64_t WeightsDigest::sum() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& [tensor, ranges] : tensors_) {
        for (const auto& [begin, rows] : ranges) sum += rows.digest;
    }
    return sum;
}

std::vector<RowsRead> WeightsDigest::rows() const {
    std::vector<RowsRead> all;
    for (const auto& [tensor, ranges] : tensors_) {
        for (const auto& [begin, rows] : ranges) all.push_back({tensor, begin, rows.end, rows.digest});
    }
    return all;
}

std::string bytes_of(const std::vector<RowsRead>& rows) {
    std::string bytes;
    const auto put = [&bytes](const auto& value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); };
    for (const RowsRead& one : rows) {
        put(static_cast<std::uint64_t>(one.tensor.size()));
        bytes += one.tensor;
        put(one.begin);
        put(one.end);
        put(one.digest);
    }
    return bytes;
}

std::vector<RowsRead> rows_of(std::string_view bytes) {
    const auto get = [&bytes](auto& value) {
        std::memcpy(&value, bytes.data(), sizeof value);
        bytes.remove_prefix(sizeof value);
    };
    std::vector<RowsRead> rows;
    while (!bytes.empty()) {
        RowsRead& one = rows.emplace_back();
        std::uint64_t length = 0;
        get(length);
        one.tensor = bytes.substr(0, length);
        bytes.remove_prefix(length);
        get(one.begin);
        get(one.end);
        get(one.digest);
    }
    return rows;
}

}  // namespace geom
