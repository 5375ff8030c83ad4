// One block of threads takes one column (or row) of one matrix: the batch runs along the grid's x, the columns along
// its y. Matrices are a few hundred rows, so 128 threads fill their warps and 32 matrices of order 128 give 4096
// blocks. Every pass reads and writes its operands once: at 32 heads of 128, 4 to 17 MB, 2 to 10 us at HBM's rate and
// less from L2. Sums within a block go through its warps in a fixed order.
#include "kernels/cuda/dense_batch_kernels.hpp"
#include "kernels/cuda/launch.cuh"

namespace geom::cuda {

namespace {

constexpr int threads = 128;
constexpr int warp_threads = 32;
constexpr unsigned whole_warp = 0xffffffffU;

dim3 columns_of(std::int64_t count, std::int64_t columns) {
    return {static_cast<unsigned>(count), static_cast<unsigned>(columns)};
}

/// The same bits on every lane.
__device__ double warp_sum(double value) {
    for (int away = warp_threads / 2; away > 0; away /= 2) value += __shfl_xor_sync(whole_warp, value, away);
    return value;
}

__device__ double warp_max(double value) {
    for (int away = warp_threads / 2; away > 0; away /= 2) {
        value = fmax(value, __shfl_xor_sync(whole_warp, value, away));
    }
    return value;
}

__global__ void copy_column(Blocks from, std::int64_t rows, Blocks to) {
    const double* in = from.at[blockIdx.x] + blockIdx.y * from.ld;
    double* out = to.at[blockIdx.x] + blockIdx.y * to.ld;
    for (std::int64_t i = threadIdx.x; i < rows; i += blockDim.x) out[i] = in[i];
}

__global__ void copy_lower_column(Blocks from, std::int64_t n, Blocks to) {
    const std::int64_t j = blockIdx.y;
    const double* in = from.at[blockIdx.x] + j * from.ld;
    double* out = to.at[blockIdx.x] + j * to.ld;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) out[i] = i < j ? 0.0 : in[i];
}

__global__ void finish_lower_column(Blocks gram, Blocks lower, std::int64_t n, double* diagonals) {
    const std::int64_t j = blockIdx.y;
    double* column = lower.at[blockIdx.x] + j * lower.ld;
    for (std::int64_t i = threadIdx.x; i < j; i += blockDim.x) column[i] = 0.0;
    if (threadIdx.x != 0) return;
    double* own = diagonals + blockIdx.x * 2 * n;
    own[j] = gram.at[blockIdx.x][j + j * gram.ld];
    own[n + j] = column[j];
}

/// A block is one warp.
__global__ void lower_row_of_qr(const double* factored, std::int64_t hidden, double* lower, std::int64_t ld,
                                std::int64_t n, double* sines) {
    const std::int64_t row = blockIdx.x, lane = threadIdx.x;
    const double* r = factored + row * hidden;
    double largest = 0;
    for (std::int64_t j = lane; j < n; j += warp_threads) {
        const double value = j <= row && j < hidden ? r[j] : 0.0;
        lower[row + j * ld] = value;
        largest = fmax(largest, fabs(value));
    }
    largest = warp_max(largest);
    double squares = 0;  // of the row over its largest element: neither overflows nor vanishes
    for (std::int64_t j = lane; j <= row && j < hidden && largest > 0; j += warp_threads) {
        squares += (r[j] / largest) * (r[j] / largest);
    }
    squares = warp_sum(squares);
    if (lane != 0) return;
    const double diagonal = row < hidden ? fabs(r[row]) : 0.0;
    sines[row] = largest > 0 ? diagonal / largest / sqrt(squares) : 0.0;
}

__global__ void pad_column(const double* from, std::int64_t ld_from, PadShape shape, double* to, std::int64_t ld_to) {
    const double* in = from + blockIdx.y * ld_from;
    double* out = to + blockIdx.y * ld_to;
    for (std::int64_t i = threadIdx.x; i < shape.rows; i += blockDim.x) out[i] = i < shape.kept ? in[i] : 0.0;
}

__global__ void finish_exchange_column(const double* products, std::int64_t n, Blocks out, double* squares) {
    __shared__ double of_warp[threads / warp_threads];
    const std::int64_t j = blockIdx.y;
    const double* b = products + blockIdx.x * 2 * n * n;
    double* column = out.at[blockIdx.x] + j * out.ld;
    double* zeros = out.at[blockIdx.x] + n + (n + j) * out.ld;
    double sum = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        if (i >= j) {
            const double above = b[j + i * n], below = b[i + j * n], difference = below - above;
            column[i] = below + above;
            sum += 2 * difference * difference;
        }
        const double beside = b[j + (n + i) * n];
        column[n + i] = beside;
        sum += 2 * beside * beside;
        zeros[i] = 0.0;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % warp_threads == 0) of_warp[threadIdx.x / warp_threads] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double all = 0;
    for (const double share : of_warp) all += share;
    squares[blockIdx.x * n + j] = all;
}

}  // namespace

void copy_blocks(std::int64_t count, Blocks from, std::int64_t rows, std::int64_t cols, Blocks to,
                 cudaStream_t stream) {
    if (count == 0 || rows == 0 || cols == 0) return;
    launch("copy_column", copy_column, {columns_of(count, cols), threads}, stream, from, rows, to);
}

void copy_lower(std::int64_t count, Blocks from, std::int64_t n, Blocks to, cudaStream_t stream) {
    launch("copy_lower_column", copy_lower_column, {columns_of(count, n), threads}, stream, from, n, to);
}

void finish_lower(std::int64_t count, Blocks gram, Blocks lower, std::int64_t n, double* diagonals,
                  cudaStream_t stream) {
    launch("finish_lower_column", finish_lower_column, {columns_of(count, n), threads}, stream, gram, lower, n,
           diagonals);
}

void lower_of_qr(const double* factored, std::int64_t hidden, double* lower, std::int64_t ld, std::int64_t n,
                 double* sines, cudaStream_t stream) {
    launch("lower_row_of_qr", lower_row_of_qr, {columns_of(n, 1), warp_threads}, stream, factored, hidden, lower, ld, n,
           sines);
}

void pad_rows(const double* from, std::int64_t ld_from, PadShape shape, double* to, std::int64_t ld_to,
              cudaStream_t stream) {
    launch("pad_column", pad_column, {columns_of(1, shape.cols), threads}, stream, from, ld_from, shape, to, ld_to);
}

void finish_exchange(std::int64_t count, const double* products, std::int64_t n, Blocks out, double* squares,
                     cudaStream_t stream) {
    launch("finish_exchange_column", finish_exchange_column, {columns_of(count, n), threads}, stream, products, n, out,
           squares);
}

}  // namespace geom::cuda
