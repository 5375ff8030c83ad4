// The machine's own large product: what a library that others wrote and tuned reaches on this rank's threads.
// Benchmarks measure gram against it; nothing else calls it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace geom::cpu {

/// C (m x n) = A (m x k) B (k x n).
struct GemmShape {
    std::int64_t m = 0;
    std::int64_t n = 0;
    std::int64_t k = 0;

    double flops() const noexcept {
        return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    }
    bool operator==(const GemmShape&) const = default;
};

struct LibraryGemm {
    std::string name;                ///< "bf16 oneDNN 2.6.3", "f32 OpenBLAS"
    std::function<void()> multiply;  ///< the product once, on operands with random entries; empty: not in this build
};

/// bf16 operands, f32 result, B in the library's own layout. kernels/cpu/onednn/present.cpp, or absent.cpp where CMake
/// did not find oneDNN.
LibraryGemm onednn_gemm(const GemmShape& shape, int threads);

/// f32 throughout.
LibraryGemm openblas_gemm(const GemmShape& shape, int threads);

}  // namespace geom::cpu
