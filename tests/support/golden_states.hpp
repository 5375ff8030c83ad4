// Golden hidden states, and how far others are from them.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "support/forward_pass.hpp"

namespace geom::test {

inline const std::filesystem::path golden = std::filesystem::path(GEOM_TEST_DATA) / "golden";
inline constexpr const char* golden_models[] = {"qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny",
                                                "qwen3-trained"};

template <class T>
std::vector<T> golden_dataset(const std::string& model, const char* name, hid_t type) {
    const hid_t file = H5Fopen((golden / model / "golden.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set);
    std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0) << model << ": " << name;
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    return values;
}

inline std::vector<std::int32_t> golden_ids(const std::string& model) {
    return golden_dataset<std::int32_t>(model, "residual/token_ids", H5T_NATIVE_INT32);
}

/// [edge, token, hidden]
inline std::vector<float> golden_states(const std::string& model) {
    return golden_dataset<float>(model, "residual/hidden_states", H5T_NATIVE_FLOAT);
}

inline double golden_cross_entropy(const std::string& model) {
    return golden_dataset<double>(model, "residual/cross_entropy", H5T_NATIVE_DOUBLE)[0];
}

/// The largest difference of an edge's states, as a share of the edge's largest magnitude; of all edges the worst. A
/// text may have been cut: its first tokens do not see the others.
inline double worst_difference(const std::vector<std::vector<float>>& states, const std::vector<float>& expected) {
    double worst = 0.0;
    const std::size_t of_edge = expected.size() / states.size();
    for (std::size_t edge = 0; edge < states.size(); ++edge) {
        EXPECT_LE(states[edge].size(), of_edge);
        float largest = 0.0F, difference = 0.0F;
        for (std::size_t i = 0; i < states[edge].size(); ++i) {
            const float wanted = expected[edge * of_edge + i], apart = std::fabs(states[edge][i] - wanted);
            largest = std::max(largest, std::fabs(wanted));
            difference = std::isnan(apart) ? INFINITY : std::max(difference, apart);
        }
        worst = std::max(worst, static_cast<double>(difference / largest));
    }
    return worst;
}

}  // namespace geom::test
