// Random numbers: the same on every machine that has the same std::log and std::cos.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <random>

namespace geom {

/// Two independent standard normal numbers of two uniform ones in (0, 1) (Box and Muller 1958).
inline std::array<double, 2> normal_pair(double u, double v) {
    constexpr double two_pi = 6.283185307179586;
    const double radius = std::sqrt(-2.0 * std::log(u)), angle = two_pi * v;
    return {radius * std::cos(angle), radius * std::sin(angle)};
}

class RandomNumbers {
public:
    explicit RandomNumbers(std::uint64_t seed) : bits_(seed) {}

    /// In (0, 1), 53 bits. The distributions of the standard library differ between implementations.
    double uniform() { return (static_cast<double>(bits_() >> 11) + 0.5) * 0x1p-53; }

    double normal() {
        kept_ = !kept_;
        if (!kept_) return pair_[1];
        const double u = uniform();
        pair_ = normal_pair(u, uniform());
        return pair_[0];
    }

private:
    std::mt19937_64 bits_;
    std::array<double, 2> pair_{};
    bool kept_ = false;  // the second of them
};

}  // namespace geom
