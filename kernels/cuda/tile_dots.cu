// gram[i, l, l'] = sum_ab (K_l K_l'^T)_ab (Q_il Q_il'^T)_ab, strip by strip (strips.hpp):
//
//   cuBLAS   K strip, a plane for each chunk of D -> sum_planes -> K tiles, one plane
//            for some heads at a time: Q strips, planes    \  tile_dots: a block for each tile (l, l'), l <= l':
//                                                          /  reads K's tile once, dots it with every head's
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

#include "core/error.hpp"
#include "kernels/cuda/convert.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/strips.hpp"

namespace geom::cuda {

namespace {

constexpr int warp = 32;
constexpr int tile_threads = 512;
constexpr int most_heads = 8;  ///< of a launch: their sums are registers

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
    std::int64_t cols;   ///< of a strip: (layers - first) * head_dim
    std::int64_t first;  ///< layer of the strip's first row and column
    std::int64_t layers;
    std::int64_t head_stride;  ///< elements from one head's planes to the next's
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

/// Block (x, y): the tile of layers first + y and first + x, to out[head * layers * layers + l * layers + r] and its
/// mirror, for each of Heads heads.
template <class T, int Width, int Heads>
__global__ void __launch_bounds__(tile_threads)
    tile_dots_kernel(const T* k, Planes<T> q, TileLaunch shape, double* out) {
    __shared__ double of_warps[tile_threads / warp];
    const std::int64_t right = blockIdx.x, left = blockIdx.y;
    if (right < left) return;  // the mirror of a tile on the other side of the diagonal
    const std::int64_t corner = left * shape.head_dim * shape.cols + right * shape.head_dim;
    const int packs_a_row = shape.head_dim / Width, packs = shape.head_dim * packs_a_row;
    double sums[Heads] = {};
    for (int p = static_cast<int>(threadIdx.x); p < packs; p += tile_threads) {
        const std::int64_t at = corner + (p / packs_a_row) * shape.cols + (p % packs_a_row) * Width;
        const auto of_k = *reinterpret_cast<const Pack<T, Width>*>(k + at);
#pragma unroll
        for (int head = 0; head < Heads; ++head) {
            const auto of_q = q.template at<Width>(head * shape.head_stride + at);
            for (int j = 0; j < Width; ++j) {
                sums[head] += static_cast<double>(of_k.of[j]) * static_cast<double>(of_q.of[j]);
            }
        }
    }
    const std::int64_t l = shape.first + left, r = shape.first + right;
#pragma unroll
    for (int head = 0; head < Heads; ++head) {
        const double sum = block_sum(sums[head], of_warps);
        if (threadIdx.x != 0) continue;
        double* of_head = out + head * shape.layers * shape.layers;
        of_head[l * shape.layers + r] = sum;
        of_head[r * shape.layers + l] = sum;
    }
}

template <class T>
using TileKernel = void (*)(const T*, Planes<T>, TileLaunch, double*);

template <class T, int Width>
TileKernel<T> tile_kernel(std::int64_t heads) {
    switch (heads) {
        case 1:
            return tile_dots_kernel<T, Width, 1>;
        case 2:
            return tile_dots_kernel<T, Width, 2>;
        case 4:
            return tile_dots_kernel<T, Width, 4>;
        default:
            return tile_dots_kernel<T, Width, most_heads>;
    }
}

/// One strip of one group.
struct StripShape {
    Range rows;  ///< layers
    std::int64_t height = 0, width = 0, elements = 0;
};

StripShape shape_of(Range rows, std::int64_t layers, std::int64_t head_dim) {
    const std::int64_t height = rows.size() * head_dim, width = (layers - rows.begin) * head_dim;
    return {rows, height, width, height * width};
}

/// Heads whose strips are held at once: 1, 2, 4 or 8.
std::int64_t heads_at_once(const StripShape& strip, const Chunks& chunks, DType kept, std::int64_t heads) {
    const std::int64_t fit = strip_bytes / (strip.elements * chunks.count * product_bytes(kept));
    std::int64_t at_once = most_heads;
    while (at_once > 1 && at_once > std::min(fit, heads)) at_once /= 2;
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

/// The strips of one group, T being the type of products.
template <class T>
class GroupRunner {
public:
    GroupRunner(Device& device, const KvGroupBlocks& group, const HeadBlockFormat& format, std::byte* scratch)
        : device_(device),
          group_(group),
          format_(format),
          types_(gemm_types(format.dtype)),
          chunks_(chunks_of(format.hidden, format.dtype)),
          out_(reinterpret_cast<double*>(scratch)),
          tiles_(reinterpret_cast<T*>(scratch + out_bytes(group.layers, group.heads))) {}

    static std::int64_t out_bytes(std::int64_t layers, std::int64_t heads) {
        return (layers * layers * heads * 8 + 255) / 256 * 256;
    }

    double* run() {
        for (const Range rows : strips_of(group_.layers, format_.head_dim, format_.hidden, format_.dtype)) {
            strip(shape_of(rows, group_.layers, format_.head_dim));
        }
        return out_;
    }

private:
    void strip(const StripShape& shape) {
        const std::int64_t planes = chunks_.count * shape.elements;
        T* k = tiles_;
        T* q = tiles_ + planes;
        multiply(group_.k, shape, k);
        if (chunks_.count > 1) {
            const auto blocks = static_cast<unsigned>(
                std::min<std::int64_t>((shape.elements + 255) / 256, 16 * device_.multiprocessors()));
            launch("sum_planes", sum_planes_kernel<T>, {blocks, 256}, device_.stream(), k, planes_at(k, shape));
        }
        for (std::int64_t head = 0, count = 0; head < group_.heads; head += count) {
            count = heads_at_once(shape, chunks_, format_.dtype, group_.heads - head);
            for (std::int64_t i = 0; i < count; ++i) {
                multiply(group_.q + (head + i) * group_.layers * format_.bytes, shape, q + i * planes);
            }
            dot(shape, head, count, k, q);
        }
    }

    /// planes[chunk] = rows of the strip times all from its first layer on, over the chunk's columns; row-major height
    /// x width. To cuBLAS, which is column-major, a row-major matrix is its transpose.
    void multiply(const std::byte* blocks, const StripShape& shape, T* planes) const {
        const std::byte* first = blocks + shape.rows.begin * format_.bytes;
        const std::int64_t whole = format_.hidden / chunks_.width;
        if (whole > 0) gemm(first, shape, chunks_.width, whole, planes);
        const std::int64_t rest = format_.hidden - whole * chunks_.width;
        if (rest == 0) return;
        gemm(first + whole * chunks_.width * size_of(format_.dtype), shape, rest, 1, planes + whole * shape.elements);
    }

    void gemm(const std::byte* first, const StripShape& shape, std::int64_t width, std::int64_t count,
              T* planes) const {
        const T one = 1, zero = 0;
        const auto cols = static_cast<int>(shape.width), rows = static_cast<int>(shape.height);
        const auto ld = static_cast<int>(format_.hidden);
        check_cublas(cublasGemmStridedBatchedEx(
                         device_.cublas(), CUBLAS_OP_T, CUBLAS_OP_N, cols, rows, static_cast<int>(width), &one, first,
                         types_.stored, ld, width, first, types_.stored, ld, width, &zero, planes, types_.product, cols,
                         shape.elements, static_cast<int>(count), types_.compute, CUBLAS_GEMM_DEFAULT),
                     "cublasGemmStridedBatchedEx");
    }

    Planes<T> planes_at(const T* data, const StripShape& shape) const {
        return {data, shape.elements, static_cast<int>(chunks_.count)};
    }

    void dot(const StripShape& shape, std::int64_t head, std::int64_t count, const T* k, const T* q) const {
        constexpr int width = 16 / static_cast<int>(sizeof(T));
        const TileLaunch tiles{static_cast<int>(format_.head_dim), shape.width, shape.rows.begin, group_.layers,
                               chunks_.count * shape.elements};
        const dim3 grid(static_cast<unsigned>(group_.layers - shape.rows.begin),
                        static_cast<unsigned>(shape.rows.size()));
        const auto kernel = format_.head_dim % width == 0 ? tile_kernel<T, width>(count) : tile_kernel<T, 1>(count);
        launch("tile_dots", kernel, {grid, tile_threads}, device_.stream(), k, planes_at(q, shape), tiles,
               out_ + head * group_.layers * group_.layers);
    }

    Device& device_;
    const KvGroupBlocks& group_;
    const HeadBlockFormat& format_;
    GemmTypes types_;
    Chunks chunks_;
    double* out_;
    T* tiles_;  ///< K's planes of a strip, then those of heads_at_once heads
};

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
                               std::span<std::byte* const> out) {
    device_.use();
    for (std::size_t i = 0; i < blocks.size(); ++i)
        convert(blocks[i].data, blocks[i].dtype, out[i], format.dtype, blocks[i].rows * blocks[i].cols, device_);
}

std::int64_t CudaHeadProducts::do_scratch_bytes(const HeadBlockFormat& format, std::int64_t layers,
                                                std::int64_t heads) const {
    const Chunks chunks = chunks_of(format.hidden, format.dtype);
    std::int64_t most = 0;
    for (const Range rows : strips_of(layers, format.head_dim, format.hidden, format.dtype)) {
        const StripShape strip = shape_of(rows, layers, format.head_dim);
        const std::int64_t held = 1 + heads_at_once(strip, chunks, format.dtype, heads);
        most = std::max(most, held * chunks.count * strip.elements * product_bytes(format.dtype));
    }
    return GroupRunner<float>::out_bytes(layers, heads) + most;
}

void CudaHeadProducts::do_tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out) {
    device_.use();
    const Buffer scratch = device_.allocate(do_scratch_bytes(format, group.layers, group.heads));
    const auto out_bytes = static_cast<std::int64_t>(out.size_bytes());
    if (pinned_.size() < out_bytes) pinned_ = device_.allocate_pinned(out_bytes);
    const double* gram = format.dtype == DType::f64 ? GroupRunner<double>(device_, group, format, scratch.data()).run()
                                                    : GroupRunner<float>(device_, group, format, scratch.data()).run();
    check_cuda(cudaMemcpyAsync(pinned_.data(), gram, out.size_bytes(), cudaMemcpyDeviceToHost, device_.stream()),
               "cudaMemcpyAsync");
    device_.wait();
    std::memcpy(out.data(), pinned_.data(), out.size_bytes());
}

}  // namespace geom::cuda
