// dot() of panels.hpp with NEON, for the files of its instruction sets.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace geom::panels {

namespace {

// In the order of AVX-512's, which adds the halves of its vectors.
double dot(const float* a, const float* b, std::int64_t n) {
    float64x2_t sums[8];
    for (float64x2_t& sum : sums) sum = vdupq_n_f64(0.0);
    for (std::int64_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            const float32x4_t x = vld1q_f32(a + i + 4 * part), y = vld1q_f32(b + i + 4 * part);
            sums[2 * part] = vfmaq_f64(sums[2 * part], vcvt_f64_f32(vget_low_f32(x)), vcvt_f64_f32(vget_low_f32(y)));
            sums[2 * part + 1] = vfmaq_f64(sums[2 * part + 1], vcvt_high_f64_f32(x), vcvt_high_f64_f32(y));
        }
    }
    for (int width = 4; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) sums[i] = vaddq_f64(sums[i], sums[i + width]);
    }
    return vgetq_lane_f64(sums[0], 0) + vgetq_lane_f64(sums[0], 1);
}

}  // namespace

}  // namespace geom::panels
