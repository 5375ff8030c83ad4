#include <fmt/format.h>
#include <omp.h>

#include <dnnl.hpp>
#include <vector>

#include "core/error.hpp"
#include "kernels/cpu/library_gemm.hpp"

namespace geom::cpu {

namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

dnnl::memory memory_of(const dnnl::memory::desc& description, const dnnl::engine& engine) {
    return dnnl::memory(description, engine);  // owned
}

void fill(const dnnl::memory& memory, std::int64_t elements) {
    const std::vector<std::uint16_t> values = random_bf16(elements);
    std::copy(values.begin(), values.end(), static_cast<std::uint16_t*>(memory.get_data_handle()));
}

}  // namespace

Yardstick onednn_gemm(const GemmShape& shape, int threads) try {
    omp_set_num_threads(threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    dnnl::stream stream(engine);
    const dnnl::memory::desc a({shape.m, shape.k}, Type::bf16, Tag::ab), b({shape.k, shape.n}, Type::bf16, Tag::any),
        c({shape.m, shape.n}, Type::f32, Tag::ab), b_plain({shape.k, shape.n}, Type::bf16, Tag::ab);
    const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(a, b, c), engine);
    dnnl::memory left = memory_of(a, engine), plain = memory_of(b_plain, engine), out = memory_of(c, engine);
    dnnl::memory right = memory_of(chosen.weights_desc(), engine);
    fill(left, shape.m * shape.k);
    fill(plain, shape.k * shape.n);
    dnnl::reorder(plain, right).execute(stream, plain, right);
    stream.wait();
    const dnnl::matmul product(chosen);
    const dnnl_version_t* version = dnnl::version();
    return {fmt::format("bf16 oneDNN {}.{}.{}", version->major, version->minor, version->patch), [=]() mutable {
                omp_set_num_threads(threads);
                product.execute(stream, {{DNNL_ARG_SRC, left}, {DNNL_ARG_WEIGHTS, right}, {DNNL_ARG_DST, out}});
                stream.wait();
            }};
} catch (const dnnl::error& error) {
    throw Error(ExitCode::internal, fmt::format("oneDNN: {}", error.what()));
}

}  // namespace geom::cpu
