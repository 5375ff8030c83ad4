// The digest of all weights that a run's numbers come from, whoever read them and in which run: a sum over rows, each
// of which counts once.
//
//   unit (heads, layer 0)  q_proj [0, 256)   k_proj [0, 128)
//   unit (gram, head 1)    q_proj [32, 64)   k_proj [0, 32)     lie within those: nothing new
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "output/records.hpp"

namespace geom {

class WeightsDigest {
public:
    /// Ranges of a tensor lie within each other or apart. Throws Error(internal) for two that overlap otherwise, and
    /// Error(input) for the same rows with two digests: they were read from different weights.
    void add(const RowsRead& rows);

    std::uint64_t sum() const noexcept;

    /// What counts, by tensor and place.
    std::vector<RowsRead> rows() const;

private:
    struct Rows {
        std::int64_t end = 0;
        std::uint64_t digest = 0;
    };
    std::map<std::string, std::map<std::int64_t, Rows>, std::less<>> tensors_;  // by name, by first row; disjoint
};

/// As bytes for another rank, and back.
std::string bytes_of(const std::vector<RowsRead>& rows);
std::vector<RowsRead> rows_of(std::string_view bytes);

}  // namespace geom
