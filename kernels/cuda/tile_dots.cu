// dots[p, l, l'] = sum_ab (K_l K'_l'^T)_ab (Q_pl Q'_pl'^T)_ab of pairs p of query heads, strip by strip (strips.hpp):
//
//   cuBLAS   K strip, a plane for each chunk of D -> sum_planes -> K tiles, one plane
//            for some pairs at a time: Q strips, planes    \  tile_dots: a block for each tile (l, l'), of a head with
//                                                          /  itself l <= l': reads K's tile once, dots it with every
//                                                             pair's
//
// Products: bf16 inputs are exact in f32, tensor cores sum promoted_cols columns; planes are added in f32 with rounding
// (strips.hpp). f32 inputs are multiplied in f32 (pedantic: no TF32, no emulation), f64 in f64. Products of tiles and
// their sums are f64: 1024 threads stride over the tile, then a tree over lanes, then over warps, always the same.
//
// Launch shape: one block of 512 threads a tile of hd x hd; at hd = 128 a thread reads 8 x 16 bytes of each plane, all
// under way at once, which, with one head a launch, 32 warps a multiprocessor turn into enough bytes in flight. Bytes
// moved a strip and head: every plane once (from the second cache level, where strip_bytes fit), K's tiles once for
// `heads_at_once` heads.
#include "kernels/cuda/tile_dots.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "core/error.hpp"
#include "kernels/cuda/convert.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/strips.hpp"

namespace geom::cuda {

namespace {

constexpr int warp = 32;
constexpr int tile_threads = 512;
constexpr int most_pairs = 8;  ///< of a launch: their sums are registers

/// Neighbours in a row that a thread reads at once, 16 bytes of them where rows allow it.
template <class T, int Width>
struct alignas(Width * sizeof(T)) Pack {
    T of[Width];
};

/// Partial sums of a strip: `count` planes of `elements` each.
template <class T>
struct Planes {
    const T* data;
    std::int64_t elements;
    int count;

    template <int Width>
    __device__ Pack<T, Width> at(std::int64_t i) const {
        auto sum = *reinterpret_cast<const Pack<T, Width>*>(data + i);
        for (int plane = 1; plane < count; ++plane) {
            const auto next = *reinterpret_cast<const Pack<T, Width>*>(data + plane * elements + i);
            for (int j = 0; j < Width; ++j) sum.of[j] += next.of[j];
        }
        return sum;
    }
};

/// out = the sum of all planes; it may be the first of them.
template <class T>
__global__ void sum_planes_kernel(T* out, Planes<T> planes) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (std::int64_t i = first; i < planes.elements; i += step) out[i] = planes.template at<1>(i).of[0];
}

/// Where the tiles of a launch lie, and where their dots go.
struct TileLaunch {
    int head_dim;
    std::int64_t cols;              ///< of a strip
    std::int64_t first, first_col;  ///< layers of the strip's first row and column
    bool triangle;                  ///< tiles below the diagonal are mirrors
    std::int64_t layers;
    std::int64_t pair_stride;     ///< elements from one pair's planes to the next's
    std::int64_t to[most_pairs];  ///< of each pair: its place in the results
};

/// Sum over the block in a fixed order; the result is thread 0's.
__device__ double block_sum(double value, double* of_warps) {
    for (int offset = warp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffU, value, offset);
    if (threadIdx.x % warp == 0) of_warps[threadIdx.x / warp] = value;
    __syncthreads();
    value = threadIdx.x < tile_threads / warp ? of_warps[threadIdx.x] : 0.0;
    if (threadIdx.x < warp) {
        for (int offset = warp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffU, value, offset);
    }
    __syncthreads();
    return value;
}

/// Block (x, y): the tile of layers first + y and first_col + x, to out[to + l * layers + r], of a triangle to its
/// mirror as well, for each of Pairs pairs.
template <class T, int Width, int Pairs>
__global__ void __launch_bounds__(tile_threads)
    tile_dots_kernel(const T* k, Planes<T> q, TileLaunch shape, double* out) {
    __shared__ double of_warps[tile_threads / warp];
    const std::int64_t right = blockIdx.x, left = blockIdx.y;
    const std::int64_t l = shape.first + left, r = shape.first_col + right;
    if (shape.triangle && r < l) return;
    const std::int64_t corner = left * shape.head_dim * shape.cols + right * shape.head_dim;
    const int packs_a_row = shape.head_dim / Width, packs = shape.head_dim * packs_a_row;
    double sums[Pairs] = {};
    for (int p = static_cast<int>(threadIdx.x); p < packs; p += tile_threads) {
        const std::int64_t at = corner + (p / packs_a_row) * shape.cols + (p % packs_a_row) * Width;
        const auto of_k = *reinterpret_cast<const Pack<T, Width>*>(k + at);
#pragma unroll
        for (int pair = 0; pair < Pairs; ++pair) {
            const auto of_q = q.template at<Width>(pair * shape.pair_stride + at);
            for (int j = 0; j < Width; ++j) {
                sums[pair] += static_cast<double>(of_k.of[j]) * static_cast<double>(of_q.of[j]);
            }
        }
    }
#pragma unroll
    for (int pair = 0; pair < Pairs; ++pair) {
        const double sum = block_sum(sums[pair], of_warps);
        if (threadIdx.x != 0) continue;
        double* of_pair = out + shape.to[pair];
        of_pair[l * shape.layers + r] = sum;
        if (shape.triangle) of_pair[r * shape.layers + l] = sum;
    }
}

template <class T>
using TileKernel = void (*)(const T*, Planes<T>, TileLaunch, double*);

template <class T, int Width>
TileKernel<T> tile_kernel(std::int64_t pairs) {
    switch (pairs) {
        case 1:
            return tile_dots_kernel<T, Width, 1>;
        case 2:
            return tile_dots_kernel<T, Width, 2>;
        case 4:
            return tile_dots_kernel<T, Width, 4>;
        default:
            return tile_dots_kernel<T, Width, most_pairs>;
    }
}

/// One strip of a product.
struct StripShape {
    Range rows;               ///< layers
    std::int64_t cols_begin;  ///< layer
    std::int64_t height = 0, width = 0, elements = 0;
};

StripShape shape_of(Range rows, std::int64_t layers, std::int64_t head_dim, Form form) {
    const std::int64_t begin = first_column(rows.begin, form);
    const std::int64_t height = rows.size() * head_dim, width = (layers - begin) * head_dim;
    return {rows, begin, height, width, height * width};
}

/// Pairs whose strips are held at once: 1, 2, 4 or 8.
std::int64_t pairs_at_once(const StripShape& strip, const Chunks& chunks, DType kept, std::int64_t pairs) {
    const std::int64_t fit = strip_bytes / (strip.elements * chunks.count * product_bytes(kept));
    std::int64_t at_once = most_pairs;
    while (at_once > 1 && at_once > std::min(fit, pairs)) at_once /= 2;
    return at_once;
}

struct GemmTypes {
    cudaDataType stored;
    cudaDataType product;
    cublasComputeType_t compute;
};

GemmTypes gemm_types(DType kept) {
    switch (kept) {
        case DType::bf16:
            return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
        case DType::f32:
            return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC};
        case DType::f64:
            return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F};
        default:
            throw Error(ExitCode::internal, "head blocks of this type are not multiplied on a GPU");
    }
}

/// Blocks of layer 0 that are multiplied with one another.
struct Sides {
    const std::byte* left;
    const std::byte* right;
};

/// Two query heads; their numbers go to out[to].
struct QueryPair {
    Sides q;
    std::int64_t to;
};

/// Pairs of query heads of which K's products are the same, T being the type of products.
template <class T>
class PairRunner {
public:
    PairRunner(Device& device, const HeadBlockFormat& format, std::int64_t layers, double* out, std::byte* scratch)
        : device_(device),
          format_(format),
          layers_(layers),
          types_(gemm_types(format.dtype)),
          chunks_(chunks_of(format.hidden, format.dtype)),
          out_(out),
          tiles_(reinterpret_cast<T*>(scratch)) {}

    void run(const Sides& k, std::span<const QueryPair> pairs, Form form) {
        if (pairs.empty()) return;
        for (const Range rows : strips_of(layers_, format_.head_dim, format_.hidden, format_.dtype, form))
            strip(k, pairs, shape_of(rows, layers_, format_.head_dim, form), form);
    }

private:
    void strip(const Sides& k_sides, std::span<const QueryPair> pairs, const StripShape& shape, Form form) {
        const std::int64_t planes = chunks_.count * shape.elements;
        T* k = tiles_;
        T* q = tiles_ + planes;
        multiply(k_sides, shape, k);
        if (chunks_.count > 1) {
            const auto blocks = static_cast<unsigned>(
                std::min<std::int64_t>((shape.elements + 255) / 256, 16 * device_.multiprocessors()));
            launch("sum_planes", sum_planes_kernel<T>, {blocks, 256}, device_.stream(), k, planes_at(k, shape));
        }
        while (!pairs.empty()) {
            const auto count =
                static_cast<std::size_t>(pairs_at_once(shape, chunks_, format_.dtype, std::ssize(pairs)));
            for (std::size_t i = 0; i < count; ++i)
                multiply(pairs[i].q, shape, q + static_cast<std::int64_t>(i) * planes);
            dot(shape, form, pairs.first(count), k, q);
            pairs = pairs.subspan(count);
        }
    }

    /// planes[chunk] = the strip's rows of the left side times its columns of the right one, over the chunk's columns;
    /// row-major height x width. To cuBLAS, which is column-major, a row-major matrix is its transpose.
    void multiply(const Sides& sides, const StripShape& shape, T* planes) const {
        const Sides first{sides.left + shape.rows.begin * format_.bytes,
                          sides.right + shape.cols_begin * format_.bytes};
        const std::int64_t whole = format_.hidden / chunks_.width,
                           bytes = whole * chunks_.width * size_of(format_.dtype);
        if (whole > 0) gemm(first, shape, chunks_.width, whole, planes);
        const std::int64_t rest = format_.hidden - whole * chunks_.width;
        if (rest == 0) return;
        gemm({first.left + bytes, first.right + bytes}, shape, rest, 1, planes + whole * shape.elements);
    }

    void gemm(const Sides& first, const StripShape& shape, std::int64_t width, std::int64_t count, T* planes) const {
        const T one = 1, zero = 0;
        const auto cols = static_cast<int>(shape.width), rows = static_cast<int>(shape.height);
        const auto ld = static_cast<int>(format_.hidden);
        check_cublas(
            cublasGemmStridedBatchedEx(device_.cublas(), CUBLAS_OP_T, CUBLAS_OP_N, cols, rows, static_cast<int>(width),
                                       &one, first.right, types_.stored, ld, width, first.left, types_.stored, ld,
                                       width, &zero, planes, types_.product, cols, shape.elements,
                                       static_cast<int>(count), types_.compute, CUBLAS_GEMM_DEFAULT),
            "cublasGemmStridedBatchedEx");
    }

    Planes<T> planes_at(const T* data, const StripShape& shape) const {
        return {data, shape.elements, static_cast<int>(chunks_.count)};
    }

    void dot(const StripShape& shape, Form form, std::span<const QueryPair> pairs, const T* k, const T* q) const {
        constexpr int width = 16 / static_cast<int>(sizeof(T));
        TileLaunch tiles{static_cast<int>(format_.head_dim),
                         shape.width,
                         shape.rows.begin,
                         shape.cols_begin,
                         form == Form::triangle,
                         layers_,
                         chunks_.count * shape.elements,
                         {}};
        for (std::size_t i = 0; i < pairs.size(); ++i) tiles.to[i] = pairs[i].to;
        const dim3 grid(static_cast<unsigned>(layers_ - shape.cols_begin), static_cast<unsigned>(shape.rows.size()));
        const auto count = std::ssize(pairs);
        const auto kernel = format_.head_dim % width == 0 ? tile_kernel<T, width>(count) : tile_kernel<T, 1>(count);
        launch("tile_dots", kernel, {grid, tile_threads}, device_.stream(), k, planes_at(q, shape), tiles, out_);
    }

    Device& device_;
    const HeadBlockFormat& format_;
    std::int64_t layers_;
    GemmTypes types_;
    Chunks chunks_;
    double* out_;
    T* tiles_;  ///< K's planes of a strip, then those of pairs_at_once pairs
};

std::int64_t out_bytes(std::int64_t layers, std::int64_t pairs) {
    return (layers * layers * pairs * 8 + 255) / 256 * 256;
}

/// K's planes of a strip and those of as many pairs as are held.
std::int64_t planes_bytes(const HeadBlockFormat& format, std::int64_t layers, std::int64_t pairs, Form form) {
    const Chunks chunks = chunks_of(format.hidden, format.dtype);
    std::int64_t most = 0;
    for (const Range rows : strips_of(layers, format.head_dim, format.hidden, format.dtype, form)) {
        const StripShape strip = shape_of(rows, layers, format.head_dim, form);
        const std::int64_t held = 1 + pairs_at_once(strip, chunks, format.dtype, pairs);
        most = std::max(most, held * chunks.count * strip.elements * product_bytes(format.dtype));
    }
    return most;
}

}  // namespace

HeadBlockFormat CudaHeadProducts::do_format(DType dtype, std::int64_t head_dim, std::int64_t hidden) const {
    HeadBlockFormat format{head_dim, hidden, dtype, 0, "cublas-bf16"};
    if (dtype == DType::f64) {
        format.path = "cublas-f64";
    } else if (dtype != DType::bf16) {
        format.dtype = DType::f32;
        format.path = "cublas-f32";
    }
    format.bytes = head_dim * hidden * size_of(format.dtype);
    return format;
}

void CudaHeadProducts::do_pack(std::span<const MatrixRef> blocks, const HeadBlockFormat& format,
                               std::span<std::byte* const> out, const MatrixRef& columns) {
    device_.use();
    const double* weights = nullptr;
    if (columns.data != nullptr) {
        if (columns_.size() < columns.cols * 8) columns_ = device_.allocate(columns.cols * 8);
        convert(columns, columns_.data(), DType::f64, device_);
        weights = columns_.as<double>();
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) convert(blocks[i], out[i], format.dtype, device_, weights);
}

std::int64_t CudaHeadProducts::do_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                                std::int64_t heads) const {
    return out_bytes(layers, heads) + planes_bytes(format, layers, heads, Form::triangle);
}

std::int64_t CudaHeadProducts::do_cross_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                                      std::int64_t left_heads, std::int64_t right_heads) const {
    const std::int64_t pairs = left_heads * right_heads;
    return out_bytes(layers, pairs) + std::max(planes_bytes(format, layers, pairs, Form::triangle),
                                               planes_bytes(format, layers, pairs, Form::square));
}

template <class F>
void CudaHeadProducts::with_results(std::int64_t scratch_bytes, std::span<double> out, F&& issue) {
    device_.use();
    if (scratch_.size() < scratch_bytes) {
        scratch_ = {};  // first, so that both are never held
        scratch_ = device_.allocate(scratch_bytes);
    }
    const auto bytes = static_cast<std::int64_t>(out.size_bytes());
    if (pinned_.size() < bytes) pinned_ = device_.allocate_pinned(bytes);
    auto* results = scratch_.as<double>();
    issue(results, scratch_.data() + (bytes + 255) / 256 * 256);
    check_cuda(cudaMemcpyAsync(pinned_.data(), results, out.size_bytes(), cudaMemcpyDeviceToHost, device_.stream()),
               "cudaMemcpyAsync");
    device_.wait();
    std::memcpy(out.data(), pinned_.data(), out.size_bytes());
}

// f(PairRunner) for the type in which a format's products are.
template <class F>
void CudaHeadProducts::with_runner(const HeadBlockFormat& format, std::int64_t layers, double* out, std::byte* scratch,
                                   F&& f) {
    if (format.dtype == DType::f64) {
        f(PairRunner<double>(device_, format, layers, out, scratch));
    } else {
        f(PairRunner<float>(device_, format, layers, out, scratch));
    }
}

void CudaHeadProducts::do_tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) {
    const std::int64_t layers = group.layers, head_bytes = layers * format.bytes;
    std::vector<QueryPair> pairs;
    for (std::int64_t i = 0; i < group.heads; ++i) {
        const std::byte* q = group.q + i * head_bytes;
        pairs.push_back({{q, q}, i * layers * layers});
    }
    with_results(do_scratch_bytes(format, layers, group.heads), out, [&](double* results, std::byte* scratch) {
        with_runner(format, layers, results, scratch, [&](auto&& runner) {
            runner.run({group.k, group.k}, pairs, Form::triangle);
        });
    });
}

// Of one group a head with itself is half of a square; its K tiles are then computed twice.
void CudaHeadProducts::do_cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right,
                                     const HeadBlockFormat& format, std::span<double> out) {
    const std::int64_t layers = left.layers, head_bytes = layers * format.bytes;
    const std::int64_t place = place_in(left, right, format);
    std::vector<QueryPair> with_itself, with_others;
    for (std::int64_t i = 0; i < left.heads; ++i) {
        for (std::int64_t j = place < 0 ? 0 : place + i; j < right.heads; ++j) {
            auto& pairs = place >= 0 && j == place + i ? with_itself : with_others;
            pairs.push_back(
                {{left.q + i * head_bytes, right.q + j * head_bytes}, (i * right.heads + j) * layers * layers});
        }
    }
    const std::int64_t bytes = do_cross_scratch_bytes(format, layers, left.heads, right.heads);
    with_results(bytes, out, [&](double* results, std::byte* scratch) {
        with_runner(format, layers, results, scratch, [&](auto&& runner) {
            runner.run({left.k, right.k}, with_itself, Form::triangle);
            runner.run({left.k, right.k}, with_others, Form::square);
        });
    });
}

}  // namespace geom::cuda
