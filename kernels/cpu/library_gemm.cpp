#include "kernels/cpu/library_gemm.hpp"

#include <cblas.h>

#include <memory>
#include <random>
#include <vector>

namespace geom::cpu {

Yardstick openblas_gemm(const GemmShape& shape, int threads) {
    struct Operands {
        std::vector<float> a, b, c;
    };
    const auto operands = std::make_shared<Operands>();
    std::minstd_rand draw(1);
    for (std::vector<float>* matrix : {&operands->a, &operands->b}) {
        matrix->resize(static_cast<std::size_t>(matrix == &operands->a ? shape.m * shape.k : shape.k * shape.n));
        for (float& value : *matrix) value = static_cast<float>(static_cast<double>(draw()) * 0x1p-30 - 1.0);
    }
    operands->c.resize(static_cast<std::size_t>(shape.m * shape.n));
    const auto m = static_cast<blasint>(shape.m), n = static_cast<blasint>(shape.n), k = static_cast<blasint>(shape.k);
    return {"f32 OpenBLAS", [=] {
                openblas_set_num_threads(threads);
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1.0F, operands->a.data(), k,
                            operands->b.data(), n, 0.0F, operands->c.data(), n);
                openblas_set_num_threads(1);  // as Workers want it
            }};
}

}  // namespace geom::cpu
