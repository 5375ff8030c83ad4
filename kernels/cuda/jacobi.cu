// One-sided Jacobi (Hestenes) on X = R^T of B P = Q R: rotations from the right make the columns of X orthogonal,
// X W = Z S, so B = (Q W) S (P Z)^T. R^T instead of B because its columns are nearly orthogonal where singular values
// differ (Drmac & Veselic, SIAM J. Matrix Anal. Appl. 29, 2008). Sweeps at order 128, B and R^T: factors of random
// heads 10 and 10, of heads with condition 1e2 14 and 8, 1e3 17 and 9, rank n / 3 21 and 10, rows scaled to 1e-12 33
// and 8.
//
// A block of threads takes a matrix. A sweep turns every pair of columns once, in n - 1 rounds of n / 2 pairs that have
// no column in common (the circle method of tournaments); a warp takes a pair, its lanes the rows, and the block meets
// after each round. (Exchanging columns of a pair by length, de Rijk's rule, spoils this order: 17 sweeps for 10.) The
// products of a pair are taken anew each time, so the last sweep, in which nothing turned, has checked every pair:
// |a_p . a_q| <= tol |a_p| |a_q|, tol = sqrt(n) eps, twice that of LAPACK's dgesvj.
//
// Error. All rotations together are orthogonal to c n eps, so |s - exact| <= c n eps s_1; and if B = C D with D
// diagonal, |s - exact| <= c n eps kappa(C) s for every value, small ones included (Demmel & Veselic, SIAM J. Matrix
// Anal. Appl. 13, 1992): a rotation changes a column by what is small against that column, and so does a reflection.
// Columns below 2^-480 of the largest element count as zero. z are columns over their lengths, orthogonal to sqrt(n)
// tol; w are the rotations' product: also orthogonal where values are small, which X^T z / s would not be.
//
// Launch: 32 warps a block where there are pairs for them. X lies in shared memory up to n = 169 on H100 (227 KiB),
// with W up to n = 119; otherwise in L2, which holds all matrices of a batch: 12 MB for 32 of order 128. A pair of
// order 128 moves 3 times 2 KiB of X and 2 of W between memory and lanes, and 30 words by shuffles: some 140 cycles of
// the SM's memory pipe, so 0.7 ms a sweep with W in L2, for any number of matrices up to that of SMs. 14 n^3 flops a
// sweep are far from what limits it.
#include <algorithm>
#include <limits>

#include "kernels/cuda/jacobi.cuh"
#include "kernels/cuda/jacobi_block.cuh"

namespace geom::cuda {

namespace {

constexpr double epsilon = std::numeric_limits<double>::epsilon();

/// What of a matrix lies in shared memory; the rest lies in global memory.
enum class Shared { nothing, triangle, triangle_and_rotations };

struct Products {
    double pp = 0, pq = 0, qq = 0;
};

__device__ Products warp_products(const double* p, const double* q, int n, int lane) {
    Products sum;
    for (int i = lane; i < n; i += warp_threads) {
        const double x = p[i], y = q[i];
        sum.pp = fma(x, x, sum.pp);
        sum.pq = fma(x, y, sum.pq);
        sum.qq = fma(y, y, sum.qq);
    }
    return {warp_sum(sum.pp), warp_sum(sum.pq), warp_sum(sum.qq)};
}

/// By the angle with sine s; tau = tan(angle / 2).
struct Rotation {
    double s = 0, tau = 0;
    bool turns = false;
};

__device__ Rotation rotation_for(const Products& of, double tolerance) {
    Rotation rotation;
    if (of.pp < zero_square || of.qq < zero_square) return rotation;
    rotation.turns = !(fabs(of.pq) <= tolerance * sqrt(of.pp) * sqrt(of.qq));  // NaN turns for ever
    if (!rotation.turns) return rotation;
    const double cotangent = (of.qq - of.pp) / (2 * of.pq);  // of twice the angle
    const double t = fabs(cotangent) > 1e8
                         ? 0.5 / cotangent
                         : copysign(1 / (fabs(cotangent) + sqrt(1 + cotangent * cotangent)), cotangent);
    const double c = 1 / sqrt(1 + t * t);
    rotation.s = c * t;
    rotation.tau = rotation.s / (1 + c);
    return rotation;
}

/// As corrections to what is there (Rutishauser): lengths drift by s eps a rotation, not by eps. With c x - s y they
/// were off by 130 eps after the thousands of rotations of a column of order 128.
__device__ void rotate(const Rotation& by, double* p, double* q, int n, int lane) {
    for (int i = lane; i < n; i += warp_threads) {
        const double x = p[i], y = q[i];
        p[i] = fma(-by.s, fma(by.tau, x, y), x);
        q[i] = fma(by.s, fma(-by.tau, y, x), y);
    }
}

/// Of the `players` (even) in the round: the last stays, the others go round in a circle.
struct Pair {
    int p, q;
};
__device__ Pair pair_in(int round, int pair, int players) {
    const int circle = players - 1, one = (round + pair) % circle;
    const int other = pair == 0 ? circle : (round - pair + circle) % circle;
    return {min(one, other), max(one, other)};
}

/// False when the last sweep still turned a pair.
__device__ bool orthogonalise(double* triangle, double* rotations, int n) {
    const int lane = threadIdx.x % warp_threads, warp = threadIdx.x / warp_threads, warps = blockDim.x / warp_threads;
    const int players = n + n % 2;
    const double tolerance = sqrt(static_cast<double>(n)) * epsilon;
    for (int sweep = 0; sweep < jacobi_most_sweeps; ++sweep) {
        int turned = 0;
        for (int round = 0; round < players - 1; ++round) {
            for (int i = warp; i < players / 2; i += warps) {
                const auto [p, q] = pair_in(round, i, players);
                if (q >= n) continue;
                double* const at_p = column(triangle, p, n);
                double* const at_q = column(triangle, q, n);
                const Rotation by = rotation_for(warp_products(at_p, at_q, n, lane), tolerance);
                if (!by.turns) continue;
                rotate(by, at_p, at_q, n, lane);
                if (rotations != nullptr) rotate(by, column(rotations, p, n), column(rotations, q, n), n, lane);
                turned = 1;
            }
            __syncthreads();
        }
        if (__syncthreads_or(turned) == 0) return true;
    }
    return false;
}

/// The lengths of the columns, and order[r] = the column of the r-th largest. Returns how many are not zero.
__device__ int sort_columns(double* triangle, int n, double* lengths, int* order) {
    __shared__ int rank;
    const int lane = threadIdx.x % warp_threads, warp = threadIdx.x / warp_threads, warps = blockDim.x / warp_threads;
    if (threadIdx.x == 0) rank = 0;
    for (int j = warp; j < n; j += warps) {
        const double square = warp_product(column(triangle, j, n), column(triangle, j, n), n);
        if (lane == 0) lengths[j] = square >= zero_square ? sqrt(square) : 0.0;  // 0 for NaN: there is an order
    }
    __syncthreads();
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        const double length = lengths[j];
        int place = 0;
        for (int i = 0; i < n; ++i) place += lengths[i] > length || (lengths[i] == length && i < j) ? 1 : 0;
        order[place] = j;
        if (length > 0) atomicAdd(&rank, 1);
    }
    __syncthreads();
    return rank;
}

template <Shared Place>
__global__ void __launch_bounds__(most_threads, 1) one_sided_jacobi(SvdBatch batch) {
    const int n = static_cast<int>(batch.n), elements = n * n;
    const std::int64_t matrix = blockIdx.x;
    double* const lengths = dynamic_shared<double>();
    double* const given = batch.triangles + matrix * elements;
    double* const triangle = Place == Shared::nothing ? given : lengths + n;
    double* const product =
        Place == Shared::triangle_and_rotations ? lengths + n + elements : batch.rotations + matrix * elements;
    double* const rotations = batch.vectors > 0 ? product : nullptr;
    for (int i = threadIdx.x; i < elements; i += blockDim.x) {
        triangle[i] = given[i];
        if (rotations != nullptr) rotations[i] = i % (n + 1) == 0 ? 1.0 : 0.0;
    }
    __syncthreads();
    const bool converged = orthogonalise(triangle, rotations, n);
    int* const order = batch.order + matrix * n;
    const int rank = sort_columns(triangle, n, lengths, order);
    const int exponent = batch.status[matrix].exponent;
    for (int r = threadIdx.x; r < n; r += blockDim.x) {
        batch.values[matrix * n + r] = scalbn(lengths[order[r]], exponent);
    }
    for (int e = threadIdx.x; e < n * static_cast<int>(batch.vectors); e += blockDim.x) {
        const int r = e / n, i = e % n, from = order[r];
        batch.u[matrix][i + r * batch.ld_u] = column(rotations, from, n)[i];
        batch.v[matrix][i + r * batch.ld_v] = r < rank ? column(triangle, from, n)[i] / lengths[from] : 0.0;
    }
    if (threadIdx.x == 0) batch.status[matrix] = {converged ? 1 : 0, rank, exponent};
}

}  // namespace

void orthogonalise_triangles(const SvdBatch& batch, const Device& device) {
    const std::int64_t row = 8 * batch.n, square = row * batch.n, pairs = (batch.n + 1) / 2;
    const std::int64_t room = shared_for_matrices(device, batch.n, 1), both = batch.vectors > 0 ? 2 * square : square;
    LaunchShape shape{static_cast<unsigned>(batch.count),
                      static_cast<unsigned>(std::min<std::int64_t>(pairs * warp_threads, most_threads)),
                      static_cast<std::size_t>(row)};
    auto* kernel = one_sided_jacobi<Shared::nothing>;
    if (both <= room) {
        shape.shared_bytes += static_cast<std::size_t>(both);
        kernel = one_sided_jacobi<Shared::triangle_and_rotations>;
    } else if (square <= room) {
        shape.shared_bytes += static_cast<std::size_t>(square);
        kernel = one_sided_jacobi<Shared::triangle>;
    }
    launch("one_sided_jacobi", kernel, shape, device.stream(), batch);
}

void jacobi_svd(const SvdBatch& batch, const Device& device) {
    if (batch.count == 0 || batch.n == 0) return;
    factor_with_pivots(batch, device);
    orthogonalise_triangles(batch, device);
    if (batch.vectors == 0) return;
    complete_vectors(batch, device);
    unfactor_vectors(batch, device);
}

}  // namespace geom::cuda
