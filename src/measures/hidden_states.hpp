// Streams that somebody else computed: a file with a dataset hidden_states [edges, tokens, hidden], f32 or f64, where
// edge l is the stream that enters layer l, and the last one leaves the last layer, before the final norm.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "output/hdf5_file.hpp"

namespace geom {

class HiddenStates {
public:
    /// The dataset is residual/hidden_states (of a result) where there is one, else hidden_states. Throws Error(input)
    /// when the file is not HDF5, has neither, or one of another rank or type.
    explicit HiddenStates(const std::filesystem::path& file);

    std::int64_t edges() const noexcept { return shape_[0]; }
    std::int64_t tokens() const noexcept { return shape_[1]; }
    std::int64_t hidden() const noexcept { return shape_[2]; }

    /// Of the first `tokens` tokens, [tokens, hidden]. Throws Error(input) when it cannot be read, Error(numerics) for
    /// NaN and infinity.
    std::vector<double> edge(std::int64_t edge, std::int64_t tokens) const;

private:
    std::string name_, dataset_;
    Hdf5File file_;
    std::vector<std::int64_t> shape_;
};

}  // namespace geom
