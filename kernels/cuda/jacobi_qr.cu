// B P = Q R by Householder reflections, the longest remaining column first, and vectors back through Q and P.
//
// Factoring: a block of threads takes a matrix, scaled by a power of two so that its largest element is in [1/2, 1). A
// step reflects the remaining columns, a warp each: one product with the Householder vector, one pass that changes the
// column and takes its new length, so the choice of the next one rests on lengths that were not updated by subtraction.
// The matrix lies in shared memory where it fits (n <= 169 on H100), else in L2. 4/3 n^3 flops in n steps of about 700
// cycles: 0.05 ms at order 128, a tenth of a Jacobi sweep. Backward stable column by column: |dB e_j| <= c n eps
// |B e_j|, which keeps small singular values of matrices with scaled columns.
//
// Back: a warp takes a vector, n reflections one after the other, 4 n^2 flops and the lower triangle from L2: 0.02 ms.
#include <algorithm>

#include "kernels/cuda/jacobi.cuh"
#include "kernels/cuda/jacobi_block.cuh"

namespace geom::cuda {

namespace {

/// The power of two above the block's largest element.
__device__ int exponent_of(const double* values, int count) {
    __shared__ double of_warp[most_threads / warp_threads];
    double largest = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) largest = fmax(largest, fabs(values[i]));
    for (int away = warp_threads / 2; away > 0; away /= 2) {
        largest = fmax(largest, __shfl_xor_sync(whole_warp, largest, away));
    }
    if (threadIdx.x % warp_threads == 0) of_warp[threadIdx.x / warp_threads] = largest;
    __syncthreads();
    for (int i = 0; i < static_cast<int>(blockDim.x) / warp_threads; ++i) largest = fmax(largest, of_warp[i]);
    int exponent = 0;
    frexp(largest, &exponent);
    return exponent;
}

/// A factorisation under way: the first `step` columns in `pivots` are done.
struct Factorisation {
    double* matrix;
    double* squares;  ///< squared length of each column from row `step` on
    int* pivots;      ///< columns by place
    int n, step;
};

/// Moves the longest remaining column to the place `step`, by the first warp. Of equal ones the first.
__device__ void choose_pivot(const Factorisation& of) {
    if (threadIdx.x >= warp_threads) return;
    int place = of.step;
    double most = -1;
    for (int i = of.step + static_cast<int>(threadIdx.x); i < of.n; i += warp_threads) {
        const double square = of.squares[of.pivots[i]];
        if (square > most) {
            most = square;
            place = i;
        }
    }
    for (int away = warp_threads / 2; away > 0; away /= 2) {
        const double other = __shfl_xor_sync(whole_warp, most, away);
        const int other_place = __shfl_xor_sync(whole_warp, place, away);
        if (other > most || (other == most && other_place < place)) {
            most = other;
            place = other_place;
        }
    }
    if (threadIdx.x != 0) return;
    const int chosen = of.pivots[place];
    of.pivots[place] = of.pivots[of.step];
    of.pivots[of.step] = chosen;
}

/// The chosen column to (r, v) with H = I - tau v v^T, v_step = 1; returns tau, 0 where nothing is left to reflect.
__device__ double make_reflection(const Factorisation& of) {
    double* const chosen = column(of.matrix, of.pivots[of.step], of.n);
    const double square = of.squares[of.pivots[of.step]], head = chosen[of.step];
    __syncthreads();  // all have read them
    if (square < zero_square) return 0;
    const double r = -copysign(sqrt(square), head), scale = 1 / (head - r);
    for (int i = of.step + static_cast<int>(threadIdx.x); i < of.n; i += blockDim.x) {
        chosen[i] = i == of.step ? r : chosen[i] * scale;
    }
    __syncthreads();
    return (r - head) / r;
}

/// Columns after the chosen one: reflected, and their lengths below it.
__device__ void reflect_columns(const Factorisation& of, double tau) {
    const int lane = threadIdx.x % warp_threads, warp = threadIdx.x / warp_threads, warps = blockDim.x / warp_threads;
    const double* const v = column(of.matrix, of.pivots[of.step], of.n);
    for (int place = of.step + 1 + warp; place < of.n; place += warps) {
        double* const x = column(of.matrix, of.pivots[place], of.n);
        double sum = 0;
        for (int i = of.step + lane; i < of.n; i += warp_threads) sum = fma(i == of.step ? 1.0 : v[i], x[i], sum);
        const double factor = tau * warp_sum(sum);
        double square = 0;
        for (int i = of.step + lane; i < of.n; i += warp_threads) {
            x[i] = fma(-factor, i == of.step ? 1.0 : v[i], x[i]);
            if (i > of.step) square = fma(x[i], x[i], square);
        }
        square = warp_sum(square);
        if (lane == 0) of.squares[of.pivots[place]] = square;
    }
    __syncthreads();
}

template <bool InShared>
__global__ void __launch_bounds__(most_threads, 1) pivoted_qr(SvdBatch batch) {
    const int n = static_cast<int>(batch.n), elements = n * n;
    const int lane = threadIdx.x % warp_threads, warp = threadIdx.x / warp_threads, warps = blockDim.x / warp_threads;
    const std::int64_t index = blockIdx.x;
    double* const given = batch.matrices + index * elements;
    double* const squares = dynamic_shared<double>();
    Factorisation of{InShared ? squares + n : given, squares, batch.pivots + index * n, n, 0};

    const int exponent = exponent_of(given, elements);
    if (threadIdx.x == 0) batch.status[index].exponent = exponent;
    for (int i = threadIdx.x; i < elements; i += blockDim.x) of.matrix[i] = scalbn(given[i], -exponent);
    for (int j = threadIdx.x; j < n; j += blockDim.x) of.pivots[j] = j;
    __syncthreads();
    for (int j = warp; j < n; j += warps) {
        const double square = warp_product(column(of.matrix, j, n), column(of.matrix, j, n), n);
        if (lane == 0) squares[j] = square;
    }
    __syncthreads();

    int rank = n;
    for (; of.step < n; ++of.step) {
        choose_pivot(of);
        __syncthreads();
        const double tau = make_reflection(of);
        if (tau == 0) {  // of all that is left this was the longest
            rank = min(rank, of.step);
            break;
        }
        if (threadIdx.x == 0) batch.taus[index * n + of.step] = tau;
        reflect_columns(of, tau);
    }
    for (int i = rank + static_cast<int>(threadIdx.x); i < n; i += blockDim.x) batch.taus[index * n + i] = 0;
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
        const int i = e / n, j = e % n;  // R^T: its column i is R's row i
        batch.triangles[index * elements + e] = j >= i && i < rank ? column(of.matrix, of.pivots[j], n)[i] : 0.0;
        if (InShared) given[e] = of.matrix[e];
    }
}

/// A block is one warp: u = Q u and v = P v of one pair.
__global__ void unfactor_pair(SvdBatch batch) {
    const int n = static_cast<int>(batch.n), lane = threadIdx.x;
    const std::int64_t index = blockIdx.x;
    double* const x = dynamic_shared<double>();
    double* const v = batch.v[index] + blockIdx.y * batch.ld_v;
    double* const u = batch.u[index] + blockIdx.y * batch.ld_u;
    double* const matrix = batch.matrices + index * n * n;
    const int* const pivots = batch.pivots + index * n;
    for (int i = lane; i < n; i += warp_threads) x[i] = v[i];
    __syncthreads();
    for (int i = lane; i < n; i += warp_threads) v[pivots[i]] = x[i];
    __syncthreads();
    for (int i = lane; i < n; i += warp_threads) x[i] = u[i];
    __syncthreads();
    for (int step = n - 1; step >= 0; --step) {  // each lane touches its own rows alone
        const double tau = batch.taus[index * n + step];
        if (tau == 0) continue;
        const double* const reflector = column(matrix, pivots[step], n);
        const int first = step / warp_threads * warp_threads + lane;
        double sum = 0;
        for (int i = first; i < n; i += warp_threads) {
            if (i >= step) sum = fma(i == step ? 1.0 : reflector[i], x[i], sum);
        }
        const double factor = tau * warp_sum(sum);
        for (int i = first; i < n; i += warp_threads) {
            if (i >= step) x[i] = fma(-factor, i == step ? 1.0 : reflector[i], x[i]);
        }
    }
    for (int i = lane; i < n; i += warp_threads) u[i] = x[i];
}

}  // namespace

void factor_with_pivots(const SvdBatch& batch, const Device& device) {
    const std::int64_t row = 8 * batch.n, square = row * batch.n;
    LaunchShape shape{static_cast<unsigned>(batch.count),
                      static_cast<unsigned>(std::min<std::int64_t>(batch.n * warp_threads, most_threads)),
                      static_cast<std::size_t>(row)};
    const bool in_shared = square <= shared_for_matrices(device, batch.n, 1);
    if (in_shared) shape.shared_bytes += static_cast<std::size_t>(square);
    launch("pivoted_qr", in_shared ? pivoted_qr<true> : pivoted_qr<false>, shape, device.stream(), batch);
}

void unfactor_vectors(const SvdBatch& batch, const Device& device) {
    const LaunchShape shape{dim3(static_cast<unsigned>(batch.count), static_cast<unsigned>(batch.vectors)),
                            warp_threads, static_cast<std::size_t>(8 * batch.n)};
    launch("unfactor_pair", unfactor_pair, shape, device.stream(), batch);
}

}  // namespace geom::cuda
