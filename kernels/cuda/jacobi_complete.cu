// A zero column has no direction, but the caller was promised orthonormal ones. For each: the unit vector that lies
// furthest from the columns already there (at least 1 / sqrt(n) off their span), less its parts along them, twice.
// Orthogonal to c n eps. One block a matrix, a thread a row, a warp a product; matrices without a zero column, all but
// a few, return at once: the launch costs some microseconds.
#include "kernels/cuda/jacobi.cuh"
#include "kernels/cuda/jacobi_block.cuh"

namespace geom::cuda {

namespace {

constexpr int threads = 256;

/// One matrix's vectors, of which `done` columns are orthonormal.
struct Columns {
    double* v;
    std::int64_t ld;
    int n, done;
};

/// The row in which the columns have the least energy.
__device__ int emptiest_row(const Columns& of, double* energies) {
    __shared__ int emptiest;
    for (int i = threadIdx.x; i < of.n; i += blockDim.x) {
        double energy = 0;
        for (int j = 0; j < of.done; ++j) energy += of.v[i + j * of.ld] * of.v[i + j * of.ld];
        energies[i] = energy;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        emptiest = 0;
        for (int i = 1; i < of.n; ++i) emptiest = energies[i] < energies[emptiest] ? i : emptiest;
    }
    __syncthreads();
    return emptiest;
}

/// x less its parts along the columns.
__device__ void make_orthogonal(const Columns& to, double* x, double* parts) {
    for (int j = threadIdx.x / warp_threads; j < to.done; j += blockDim.x / warp_threads) {
        const double part = warp_product(to.v + j * to.ld, x, to.n);
        if (threadIdx.x % warp_threads == 0) parts[j] = part;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < to.n; i += blockDim.x) {
        for (int j = 0; j < to.done; ++j) x[i] -= parts[j] * to.v[i + j * to.ld];
    }
    __syncthreads();
}

__global__ void __launch_bounds__(threads, 1) complete_columns(SvdBatch batch) {
    const int n = static_cast<int>(batch.n);
    double* const x = dynamic_shared<double>();
    double* const scratch = x + n;
    Columns columns{batch.v[blockIdx.x], batch.ld_v, n, batch.status[blockIdx.x].rank};
    for (; columns.done < batch.vectors; ++columns.done) {
        const int row = emptiest_row(columns, scratch);
        for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = i == row ? 1.0 : 0.0;
        __syncthreads();
        make_orthogonal(columns, x, scratch);
        make_orthogonal(columns, x, scratch);
        const double length = sqrt(warp_product(x, x, n));
        for (int i = threadIdx.x; i < n; i += blockDim.x) columns.v[i + columns.done * columns.ld] = x[i] / length;
        __syncthreads();
    }
}

}  // namespace

void complete_vectors(const SvdBatch& batch, const Device& device) {
    const LaunchShape shape{static_cast<unsigned>(batch.count), threads, static_cast<std::size_t>(2 * 8 * batch.n)};
    launch("complete_columns", complete_columns, shape, device.stream(), batch);
}

}  // namespace geom::cuda
