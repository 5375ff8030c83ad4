// That the emulated GPU shows the mistakes it is there for: lateness, memory spaces, bounds, threads that diverge.
#include <cublas_v2.h>
#include <cusolverDn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "emulator/emulator.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/gpu.hpp"

namespace geom::cuda {

namespace {

/// Device or pinned memory of `count` numbers.
template <class T>
class Memory {
public:
    explicit Memory(std::size_t count, bool pinned = false) : pinned_(pinned) {
        void* data = nullptr;
        const cudaError_t status =
            pinned ? cudaMallocHost(&data, count * sizeof(T)) : cudaMalloc(&data, count * sizeof(T));
        check_cuda(status, "allocation");
        data_ = static_cast<T*>(data);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() { pinned_ ? cudaFreeHost(data_) : cudaFree(data_); }
    T* data() const { return data_; }
    T& operator[](std::size_t i) const { return data_[i]; }

private:
    bool pinned_;
    T* data_ = nullptr;
};

void wait_for(const Stream& stream) {
    poll([&stream] { return cudaStreamQuery(stream.get()); }, "the test's stream");
}

/// Behind all that was put into any stream.
void copy(void* to, const void* from, std::size_t bytes) {
    emulator::finish_all();
    const Stream stream = make_stream();
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.get()), "cudaMemcpyAsync");
    wait_for(stream);
}

template <class T>
std::vector<T> fetched(const T* from, std::size_t count) {
    std::vector<T> host(count);
    copy(host.data(), from, count * sizeof(T));
    return host;
}

template <class T>
void stored(T* to, const std::vector<T>& from) {
    copy(to, from.data(), from.size() * sizeof(T));
}

__global__ void add_one(double* x, int n) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] += 1;
}

__global__ void sums(const int* in, int* out) {
    int value = in[blockIdx.x * blockDim.x + threadIdx.x];
    __shared__ int of_warps[32];
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_down_sync(0xffffffffu, value, distance);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x != 0) return;
    int sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += of_warps[warp];
    out[blockIdx.x] = sum;
}

__global__ void shuffles(double* out) {
    const int lane = static_cast<int>(threadIdx.x);
    out[2 * lane] = __shfl_xor_sync(0xffffffffu, lane, 5);
    out[2 * lane + 1] = __shfl_down_sync(0xffffffffu, 1.5 * lane, 4);
}

__global__ void reversed(double* x, int n, int reach) {
    double* shared = dynamic_shared<double>();
    for (int i = static_cast<int>(threadIdx.x); i < reach; i += static_cast<int>(blockDim.x)) shared[i] = x[i];
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) x[i] = shared[n - 1 - i];
}

__global__ void unmet(double* x) {
    if (threadIdx.x < 40) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    x[threadIdx.x] = 0;
}

__global__ void left_early(double* x) {
    if (threadIdx.x == 33) return;
    __syncthreads();
    x[threadIdx.x] = 0;
}

__global__ void neighbour_without_barrier(int* out) {
    __shared__ int values[256];
    values[threadIdx.x] = -1;
    __syncthreads();
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    out[threadIdx.x] = values[(threadIdx.x + 255) % 256];  // a barrier is missing
}

TEST(Emulator, a_copy_to_the_host_is_not_there_before_a_wait) {
    const Stream stream = make_stream();
    const Memory<double> device(4);
    const Memory<double> pinned(4, true);
    stored(device.data(), {1, 2, 3, 4});
    pinned[3] = 0;
    ASSERT_EQ(cudaMemcpyAsync(pinned.data(), device.data(), 32, cudaMemcpyDefault, stream.get()), cudaSuccess);
    EXPECT_EQ(pinned[3], 0);
    wait_for(stream);
    EXPECT_EQ(pinned[3], 4);
}

TEST(Emulator, staging_memory_that_is_used_again_too_early_changes_what_is_sent) {
    const Stream stream = make_stream();
    const Memory<double> device(1);
    const Memory<double> pinned(1, true);
    pinned[0] = 1;
    ASSERT_EQ(cudaMemcpyAsync(device.data(), pinned.data(), 8, cudaMemcpyHostToDevice, stream.get()), cudaSuccess);
    pinned[0] = 2;
    EXPECT_EQ(fetched(device.data(), 1)[0], 2);
    double pageable = 3;  // these bytes are taken at once
    ASSERT_EQ(cudaMemcpyAsync(device.data(), &pageable, 8, cudaMemcpyHostToDevice, stream.get()), cudaSuccess);
    pageable = 4;
    EXPECT_EQ(fetched(device.data(), 1)[0], 3);
}

TEST(Emulator, a_stream_waits_for_another_only_through_an_event) {
    const Stream writes = make_stream();
    const Stream reads = make_stream();
    const Event written = make_event();
    const Memory<double> device(1);
    const Memory<double> pinned(2, true);
    stored(device.data(), {1});
    launch("add_one", add_one, {1, 32}, writes.get(), device.data(), 1);
    ASSERT_EQ(cudaEventRecord(written.get(), writes.get()), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(&pinned[0], device.data(), 8, cudaMemcpyDefault, reads.get()), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(reads.get(), written.get(), 0), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(&pinned[1], device.data(), 8, cudaMemcpyDefault, reads.get()), cudaSuccess);
    launch("add_one", add_one, {1, 32}, writes.get(), device.data(), 1);
    wait_for(reads);
    EXPECT_EQ(pinned[0], 1);
    EXPECT_EQ(pinned[1], 2);
    EXPECT_EQ(emulator::pending_operations(), 1);
    EXPECT_EQ(fetched(device.data(), 1)[0], 3);
}

TEST(Emulator, a_query_runs_one_operation_and_says_not_ready) {
    const Stream stream = make_stream();
    const Memory<double> device(1);
    ASSERT_EQ(cudaStreamQuery(stream.get()), cudaSuccess);
    for (int i = 0; i < 2; ++i) launch("add_one", add_one, {1, 32}, stream.get(), device.data(), 1);
    EXPECT_EQ(cudaStreamQuery(stream.get()), cudaErrorNotReady);
    EXPECT_EQ(emulator::pending_operations(), 1);
    EXPECT_EQ(cudaStreamQuery(stream.get()), cudaErrorNotReady);
    EXPECT_EQ(cudaGetLastError(), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamQuery(stream.get()), cudaSuccess);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(Emulator, new_device_memory_is_not_a_number) {
    const Memory<double> device(3);
    for (const double x : fetched(device.data(), 3)) EXPECT_TRUE(std::isnan(x));
}

TEST(EmulatorDeathTest, host_code_that_touches_device_memory_dies) {
    const Memory<double> device(3);
    volatile double* data = device.data();
    EXPECT_DEATH(static_cast<void>(data[1]), "host code touched byte 8 of 24 of device memory");
}

TEST(EmulatorDeathTest, a_kernel_that_is_given_host_memory_dies) {
    const Stream stream = make_stream();
    double host = 0;
    EXPECT_DEATH(
        {
            launch("add_one", add_one, {1, 32}, stream.get(), &host, 1);
            wait_for(stream);
        },
        "kernel add_one: its pointer 0 is of the host's memory");
}

TEST(EmulatorDeathTest, a_kernel_that_writes_beyond_an_allocation_dies) {
    const Stream stream = make_stream();
    const Memory<double> short_one(31);  // 8 of its 256 bytes are left over
    const Memory<double> whole(32);      // ends at the guard page
    EXPECT_DEATH(
        {
            launch("add_one", add_one, {1, 32}, stream.get(), short_one.data(), 32);
            wait_for(stream);
        },
        "add_one wrote outside an allocation of 248 bytes");
    EXPECT_DEATH(
        {
            launch("add_one", add_one, {2, 32}, stream.get(), whole.data(), 33);
            wait_for(stream);
        },
        "kernel add_one, block .1, 0, 0., thread .0, 0, 0. touched byte 256 of 256 of device memory");
}

TEST(Emulator, barriers_and_shuffles_sum_a_block) {
    const Stream stream = make_stream();
    const Memory<int> in(3 * 96);
    const Memory<int> out(3);
    std::vector<int> values(3 * 96);
    std::iota(values.begin(), values.end(), 0);
    stored(in.data(), values);
    launch("sums", sums, {3, 96}, stream.get(), in.data(), out.data());
    EXPECT_EQ(fetched(out.data(), 3), (std::vector<int>{4560, 13776, 22992}));
}

TEST(Emulator, shuffles_read_the_lanes_they_name) {
    const Stream stream = make_stream();
    const Memory<double> out(32 * 2);
    launch("shuffles", shuffles, {1, 32}, stream.get(), out.data());
    const auto rows = fetched(out.data(), 32 * 2);
    for (int lane = 0; lane < 32; ++lane) {
        const double* row = rows.data() + 2 * lane;
        EXPECT_EQ(row[0], lane ^ 5);
        EXPECT_EQ(row[1], 1.5 * (lane < 28 ? lane + 4 : lane));
    }
}

TEST(EmulatorDeathTest, threads_that_diverge_at_a_barrier_die) {
    const Stream stream = make_stream();
    const Memory<double> out(64);
    const auto run = [&](void (*kernel)(double*), const char* name) {
        launch(name, kernel, {1, 64}, stream.get(), out.data());
        wait_for(stream);
    };
    EXPECT_DEATH(run(unmet, "unmet"), "kernel unmet, block .0, 0, 0.: threads diverged");
    EXPECT_DEATH(run(left_early, "left_early"), "1 of 64 threads .the first is 33. ended");
}

TEST(Emulator, a_missing_barrier_shows) {
    const Stream stream = make_stream();
    const Memory<int> out(256);
    launch("neighbour_without_barrier", neighbour_without_barrier, {2, 256}, stream.get(), out.data());
    const auto values = fetched(out.data(), 256);
    EXPECT_NE(std::count(values.begin(), values.end(), -1), 0);
}

TEST(EmulatorDeathTest, dynamic_shared_memory_has_the_size_that_was_asked_for) {
    const Stream stream = make_stream();
    const Memory<double> x(1001);
    stored(x.data(), std::vector<double>(1001, 1.0));
    launch("reversed", reversed, {1, 64, 999 * 8}, stream.get(), x.data(), 999, 999);
    wait_for(stream);
    const auto run = [&](int n, int reach) {
        launch("reversed", reversed, {1, 64, static_cast<std::size_t>(n) * 8}, stream.get(), x.data(), n, reach);
        wait_for(stream);
    };
    EXPECT_DEATH(run(999, 1000), "kernel reversed, block .0, 0, 0. wrote outside its 7992 bytes");
    EXPECT_DEATH(run(999, 1001), "kernel reversed, .* touched memory beyond the dynamic shared memory");
}

TEST(Emulator, shapes_that_the_device_refuses_are_refused) {
    const Stream stream = make_stream();
    const Memory<double> x(1);
    const auto run = [&](const LaunchShape& shape) { launch("add_one", add_one, shape, stream.get(), x.data(), 0); };
    EXPECT_THROW(run({0, 32}), Error);
    EXPECT_THROW(run({1, 1025}), Error);
    EXPECT_THROW(run({dim3(1, 65536), 32}), Error);
    EXPECT_THROW(run({1, 32, 232449}), Error);
    cudaGetLastError();  // the refused attribute is still the last error, as on hardware
    EXPECT_NO_THROW(run({dim3(2, 3, 2), dim3(8, 4, 2), 232448}));
    wait_for(stream);
}

TEST(Emulator, device_memory_ends) {
    setenv("GEOM_EMULATED_MEMORY", "1000000", 1);
    emulator::forget_peak();
    {
        const Memory<std::byte> most(900000);
        void* data = nullptr;
        EXPECT_EQ(cudaMalloc(&data, 100001), cudaErrorMemoryAllocation);
        EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
        std::size_t free = 0, total = 0;
        EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
        EXPECT_EQ(free, 100000U);
        EXPECT_EQ(total, 1000000U);
    }
    EXPECT_EQ(emulator::device_bytes(), 0);
    EXPECT_EQ(emulator::peak_device_bytes(), 900000);
    unsetenv("GEOM_EMULATED_MEMORY");
}

TEST(Emulator, devices_are_as_many_as_the_environment_says) {
    setenv("GEOM_EMULATED_DEVICES", "2", 1);
    int count = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(count, 2);
    cudaDeviceProp first, second;
    ASSERT_EQ(cudaGetDeviceProperties(&first, 0), cudaSuccess);
    ASSERT_EQ(cudaGetDeviceProperties(&second, 1), cudaSuccess);
    EXPECT_NE(std::memcmp(&first.uuid, &second.uuid, 16), 0);
    EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
    setenv("GEOM_EMULATED_DEVICES", "0", 1);
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    unsetenv("GEOM_EMULATED_DEVICES");
    cudaGetLastError();
}

/// Handles on a stream.
struct Libraries {
    Stream stream = make_stream();
    Cublas blas;
    Cusolver solver;
    CusolverParams params;

    Libraries() {
        cublasHandle_t b = nullptr;
        check_cublas(cublasCreate(&b), "cublasCreate");
        blas.reset(b);
        check_cublas(cublasSetStream(b, stream.get()), "cublasSetStream");
        cusolverDnHandle_t s = nullptr;
        check_cusolver(cusolverDnCreate(&s), "cusolverDnCreate");
        solver.reset(s);
        check_cusolver(cusolverDnSetStream(s, stream.get()), "cusolverDnSetStream");
        cusolverDnParams_t p = nullptr;
        check_cusolver(cusolverDnCreateParams(&p), "cusolverDnCreateParams");
        params.reset(p);
    }
};

TEST(Emulator, products_of_bf16_are_sums_in_f32) {
    const Libraries lib;
    const Memory<std::uint16_t> a(2 * 6);
    const Memory<float> c(2 * 4);
    stored<std::uint16_t>(a.data(), {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0,    // 1 2 3 4 5 6
                                     0x3f80, 0xbf80, 0x3f80, 0xbf80, 0x3f80, 0xbf80});  // 1 -1 1 -1 1 -1
    const float one = 1, zero = 0;
    // Two row-major matrices of 2 x 3, each times its own transpose.
    check_cublas(cublasGemmStridedBatchedEx(lib.blas.get(), CUBLAS_OP_T, CUBLAS_OP_N, 2, 2, 3, &one, a.data(),
                                            CUDA_R_16BF, 3, 6, a.data(), CUDA_R_16BF, 3, 6, &zero, c.data(), CUDA_R_32F,
                                            2, 4, 2, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                 "cublasGemmStridedBatchedEx");
    EXPECT_EQ(emulator::pending_operations(), 1);
    EXPECT_EQ(fetched(c.data(), 8), (std::vector<float>{14, 32, 32, 77, 3, -3, -3, 3}));
}

TEST(EmulatorDeathTest, a_product_beyond_its_operand_dies) {
    const Libraries lib;
    const Memory<double> a(15), c(16);
    const double one = 1, zero = 0;
    const auto multiply = [&](int ld_of_a) {
        return cublasGemmEx(lib.blas.get(), CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, a.data(), CUDA_R_64F, ld_of_a,
                            a.data(), CUDA_R_64F, 4, &zero, c.data(), CUDA_R_64F, 4, CUBLAS_COMPUTE_64F,
                            CUBLAS_GEMM_DEFAULT);
    };
    const auto run = [&] {
        multiply(4);
        wait_for(lib.stream);
    };
    EXPECT_DEATH(run(), "A takes 128 bytes and the allocation of 120 has 120 left");
    EXPECT_EQ(multiply(3), CUBLAS_STATUS_INVALID_VALUE);
}

TEST(Emulator, batched_eigenvalues_ascend_and_the_matrices_are_destroyed) {
    const Libraries lib;
    const Memory<double> a(8), w(4);
    const Memory<int> info(2);
    stored<double>(a.data(), {2, 1, 1, 2, -3, 0, 0, 5});
    std::size_t device_bytes = 0, host_bytes = 0;
    check_cusolver(cusolverDnXsyevBatched_bufferSize(lib.solver.get(), lib.params.get(), CUSOLVER_EIG_MODE_NOVECTOR,
                                                     CUBLAS_FILL_MODE_LOWER, 2, CUDA_R_64F, a.data(), 2, CUDA_R_64F,
                                                     w.data(), CUDA_R_64F, &device_bytes, &host_bytes, 2),
                   "cusolverDnXsyevBatched_bufferSize");
    const Memory<std::byte> workspace(device_bytes);
    std::vector<std::byte> host(host_bytes);
    const auto run = [&](std::size_t bytes) {
        return cusolverDnXsyevBatched(lib.solver.get(), lib.params.get(), CUSOLVER_EIG_MODE_NOVECTOR,
                                      CUBLAS_FILL_MODE_LOWER, 2, CUDA_R_64F, a.data(), 2, CUDA_R_64F, w.data(),
                                      CUDA_R_64F, workspace.data(), bytes, host.data(), host.size(), info.data(), 2);
    };
    EXPECT_EQ(run(device_bytes - 1), CUSOLVER_STATUS_INVALID_VALUE);
    ASSERT_EQ(run(device_bytes), CUSOLVER_STATUS_SUCCESS);
    const auto values = fetched(w.data(), 4);
    const std::vector<double> expected{1, 3, -3, 5};
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(values[i], expected[i], 1e-14);
    EXPECT_EQ(fetched(info.data(), 2), (std::vector<int>{0, 0}));
    EXPECT_TRUE(std::isnan(fetched(a.data(), 8)[0]));
}

TEST(Emulator, batched_calls_read_their_pointers_from_the_device) {
    const Libraries lib;
    const Memory<double> a(8), b(4);
    const Memory<double*> of_a(2), of_b(2);
    const Memory<int> info(2);
    stored<double>(a.data(), {4, 2, 2, 2, 9, 0, 0, 1});
    stored<double>(b.data(), {2, 3, 3, 2});
    stored<double*>(of_a.data(), {a.data(), a.data() + 4});
    stored<double*>(of_b.data(), {b.data(), b.data() + 2});
    const double one = 1;
    check_cusolver(cusolverDnDpotrfBatched(lib.solver.get(), CUBLAS_FILL_MODE_LOWER, 2, of_a.data(), 2, info.data(), 2),
                   "cusolverDnDpotrfBatched");
    check_cublas(cublasDtrsmBatched(lib.blas.get(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N,
                                    CUBLAS_DIAG_NON_UNIT, 2, 1, &one, of_a.data(), 2, of_b.data(), 2, 2),
                 "cublasDtrsmBatched");
    EXPECT_EQ(fetched(b.data(), 4), (std::vector<double>{1, 2, 1, 2}));
    EXPECT_EQ(fetched(info.data(), 2), (std::vector<int>{0, 0}));
    EXPECT_TRUE(std::isnan(fetched(a.data(), 4)[2])) << "the other triangle is cuSOLVER's workspace";
}

TEST(Emulator, products_of_a_second_group_allocate_nothing_until_they_end) {
    const auto backend = make_cuda_backend(0, 1);
    HeadProducts& products = backend->head_products();
    const HeadBlockFormat format = products.format(DType::f32, 8, 40);
    const Memory<float> blocks(4 * 8 * 40);
    stored<float>(blocks.data(), std::vector<float>(4 * 8 * 40, 1));
    const auto* data = reinterpret_cast<const std::byte*>(blocks.data());
    std::vector<double> dots(4);
    const auto multiply = [&] { products.tile_dots({2, 1, data, data + 2 * format.bytes}, format, dots); };
    const std::int64_t without = emulator::device_bytes();
    multiply();
    const std::int64_t before = emulator::memory_calls();
    multiply();
    EXPECT_EQ(emulator::memory_calls(), before);
    EXPECT_EQ(dots, std::vector<double>(4, 64.0 * 40 * 40));
    products.end_products();
    EXPECT_EQ(emulator::device_bytes(), without);
}

TEST(Emulator, spectra_of_a_second_layer_allocate_nothing) {
    const auto backend = make_cuda_backend(0, 2);
    Matrices& matrices = backend->matrices();
    const Memory<double> weights(1100 * 40), sums(40 * 40);
    stored<double>(weights.data(), std::vector<double>(1100 * 40, 0.5));
    const auto* data = reinterpret_cast<const std::byte*>(weights.data());
    const std::vector<MatrixRef> layer{{data, DType::f64, 1100, 40}, {data, DType::f64, 40, 70}};
    const auto look = [&] {
        EXPECT_EQ(matrices.gram_singular_values(layer).size(), 2U);
        matrices.add_gram(layer[0], true, sums.data());
        EXPECT_EQ(matrices.singular_values_of_gram(sums.data(), {1100, 40}).values.size(), 40U);
    };
    look();
    const std::int64_t before = emulator::memory_calls();
    look();
    EXPECT_EQ(emulator::memory_calls(), before);
}

}  // namespace

}  // namespace geom::cuda
