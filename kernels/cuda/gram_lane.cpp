// Flops of a Gram matrix of order n over a long side of K: n^2 K by DSYRK, half of what DGEMM would do. A panel is
// widened to fp64 by a kernel (10 bytes an element moved) and added to what the panels before gave, 16 n^2 bytes at
// most: at n = 5120 some 0.1 ms beside 0.13 ms of products at the 50 TFlop/s of fp64 tensor cores. The reduction to
// three diagonals, 4/3 n^3 flops, reads the matrix n / 2 times.
#include "kernels/cuda/gram_lane.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "kernels/cpu/large_matrix.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"
#include "kernels/cuda/gram_kernels.hpp"
#include "kernels/cuda/widen.hpp"

namespace geom::cuda {

namespace {

constexpr std::int64_t largest_of_several = 1024, most_at_once = 64, bytes_at_once = std::int64_t{64} << 20;

// A reduction squares what it is given: numbers beyond 2^+-300 are brought to the middle of the range, exactly but for
// what is below 2^-700 of the largest.
constexpr int far_exponent = 300;

int exponent_to_scale(double trace) {
    if (trace == 0) return 0;
    const int exponent = std::clamp(std::ilogb(trace), -1000, 1000);  // whose powers are numbers
    return std::abs(exponent) > far_exponent ? exponent : 0;
}

struct EigenWorkspace {
    std::size_t device_bytes = 0, host_bytes = 0;
};

EigenWorkspace workspace_of(cusolverDnHandle_t solver, cusolverDnParams_t params, const EigenCall& call) {
    EigenWorkspace workspace;
    if (call.count == 1) {
        check_cusolver(cusolverDnXsyevd_bufferSize(solver, params, CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER,
                                                   call.n, CUDA_R_64F, nullptr, call.n, CUDA_R_64F, nullptr, CUDA_R_64F,
                                                   &workspace.device_bytes, &workspace.host_bytes),
                       "cusolverDnXsyevd_bufferSize");
    } else {
        check_cusolver(
            cusolverDnXsyevBatched_bufferSize(solver, params, CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER,
                                              call.n, CUDA_R_64F, nullptr, call.n, CUDA_R_64F, nullptr, CUDA_R_64F,
                                              &workspace.device_bytes, &workspace.host_bytes, call.count),
            "cusolverDnXsyevBatched_bufferSize");
    }
    return workspace;
}

/// Pieces begin at multiples of 256 bytes.
std::int64_t rounded(std::int64_t doubles) { return (doubles + 31) / 32 * 32; }

}  // namespace

EigenCall eigen_call(std::int64_t n) {
    if (n > largest_of_several) return {n, 1};
    return {n, std::min(most_at_once, bytes_at_once / (8 * n * n))};
}

// --- Gram matrices ---------------------------------------------------------------------------------------------------

std::int64_t panel_doubles(std::int64_t n) { return n * cpu::gram_panel; }

void add_gram(const GramQueue& on, const MatrixRef& a, bool wide, bool first, double* gram) {
    const std::int64_t n = wide ? a.rows : a.cols, length = wide ? a.cols : a.rows;
    const StoredRows whole = stored_rows({&a, 1})[0];
    for (std::int64_t begin = 0; begin < length; begin += cpu::gram_panel) {
        const Range part{begin, std::min(begin + cpu::gram_panel, length)};
        StoredRows rows = whole;
        if (wide) {
            widen(rows, {.rows = n, .hidden = a.cols, .columns = part}, on.panel, on.stream);
        } else {
            rows.data += part.begin * a.cols * size_of(a.dtype);
            widen(rows, {.rows = part.size(), .hidden = n, .columns = {0, n}}, on.panel, on.stream);
        }
        const double one = 1, beta = first && part.begin == 0 ? 0 : 1;
        check_cublas(
            cublasDsyrk(on.cublas, CUBLAS_FILL_MODE_LOWER, wide ? CUBLAS_OP_T : CUBLAS_OP_N, narrow(n),
                        narrow(part.size()), &one, on.panel, narrow(wide ? part.size() : n), &beta, gram, narrow(n)),
            "cublasDsyrk");
    }
}

// --- a lane ----------------------------------------------------------------------------------------------------------

GramLane::GramLane(const Device& device, Buffer workspace)
    : device_(device),
      stream_(make_stream()),
      workspace_(std::move(workspace)),
      cublas_(make_cublas(stream_.get(), workspace_)),
      cusolver_(make_cusolver(stream_.get())),
      params_(make_cusolver_params()) {}

std::array<std::int64_t, 5> GramLane::pieces(const Device& device, const EigenCall& call) {
    const std::size_t solver = workspace_of(device.cusolver(), device.cusolver_params(), call).device_bytes;
    return {call.count * call.n * call.n, panel_doubles(call.n), call.count * call.n, doubles_for<int>(call.count),
            static_cast<std::int64_t>((solver + 7) / 8)};
}

std::int64_t GramLane::bytes(const Device& device, const EigenCall& call) {
    std::int64_t doubles = 0;
    for (const std::int64_t piece : pieces(device, call)) doubles += rounded(piece);
    return 8 * doubles;
}

std::int64_t GramLane::landing_bytes(const EigenCall& call) {
    return 8 * (call.count * call.n + doubles_for<int>(call.count));
}

void GramLane::begin(cudaEvent_t ready, const EigenCall& call, double* memory) {
    device_.use();
    call_ = call;
    const auto sizes = pieces(device_, call);
    const auto take = [&](std::size_t i) { return std::exchange(memory, memory + rounded(sizes[i])); };
    squares_ = take(0);
    panel_ = take(1);
    numbers_ = take(2);
    infos_ = reinterpret_cast<int*>(take(3));
    solver_ = take(4);
    if (landing_bytes(call) > landing_.size()) {
        throw Error(ExitCode::internal, "a lane without memory for its results");
    }
    check_cuda(cudaStreamWaitEvent(stream_.get(), ready), "cudaStreamWaitEvent");
}

void GramLane::gram_of(const MatrixRef& a, std::int64_t slot) {
    add_gram({cublas_.get(), stream_.get(), panel_}, a, a.rows <= a.cols, true, squares_ + slot * call_.n * call_.n);
}

void GramLane::clear(std::int64_t slot) {
    const std::int64_t size = call_.n * call_.n;
    check_cuda(cudaMemsetAsync(squares_ + slot * size, 0, static_cast<std::size_t>(8 * size), stream_.get()),
               "cudaMemsetAsync");
}

void GramLane::wait() const {
    poll([this] { return cudaStreamQuery(stream_.get()); }, "work on the GPU");
}

std::vector<double> GramLane::traces(const double* matrices, std::int64_t used) {
    const std::int64_t n = call_.n;
    copy_diagonals(matrices, used, n, numbers_, stream_.get());
    check_cuda(cudaMemcpyAsync(landing_.data(), numbers_, static_cast<std::size_t>(8 * used * n),
                               cudaMemcpyDeviceToHost, stream_.get()),
               "cudaMemcpyAsync");
    wait();
    std::vector<double> traces;
    for (std::int64_t i = 0; i < used; ++i) {
        const double* const diagonal = landing_.as<double>() + i * n;
        traces.push_back(std::accumulate(diagonal, diagonal + n, 0.0));
    }
    return traces;
}

void GramLane::solve(double* matrices) {
    const EigenWorkspace workspace = workspace_of(cusolver_.get(), params_.get(), call_);
    solver_host_.resize(std::max(workspace.host_bytes, solver_host_.size()));
    // Older cuSOLVERs count on a workspace of zeros: see CudaDenseBatch::eigenvalues_of.
    check_cuda(cudaMemsetAsync(solver_, 0, workspace.device_bytes, stream_.get()), "cudaMemsetAsync");
    if (call_.count == 1) {
        check_cusolver(
            cusolverDnXsyevd(cusolver_.get(), params_.get(), CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER,
                             call_.n, CUDA_R_64F, matrices, call_.n, CUDA_R_64F, numbers_, CUDA_R_64F, solver_,
                             workspace.device_bytes, solver_host_.data(), workspace.host_bytes, infos_),
            "cusolverDnXsyevd");
    } else {
        check_cusolver(cusolverDnXsyevBatched(cusolver_.get(), params_.get(), CUSOLVER_EIG_MODE_NOVECTOR,
                                              CUBLAS_FILL_MODE_LOWER, call_.n, CUDA_R_64F, matrices, call_.n,
                                              CUDA_R_64F, numbers_, CUDA_R_64F, solver_, workspace.device_bytes,
                                              solver_host_.data(), workspace.host_bytes, infos_, call_.count),
                       "cusolverDnXsyevBatched");
    }
}

std::span<const double> GramLane::eigenvalues(double* matrices, std::span<const double> traces) {
    const std::int64_t n = call_.n, used = std::ssize(traces);
    for (std::int64_t i = 0; i < used; ++i) {
        const int exponent = exponent_to_scale(traces[at(i)]);
        if (exponent != 0) scale_matrix(matrices + i * n * n, n, std::ldexp(1.0, -exponent), stream_.get());
    }
    solve(matrices);
    double* const landed = landing_.as<double>();
    int* const infos = reinterpret_cast<int*>(landed + call_.count * n);
    check_cuda(cudaMemcpyAsync(landed, numbers_, static_cast<std::size_t>(8 * used * n), cudaMemcpyDeviceToHost,
                               stream_.get()),
               "cudaMemcpyAsync");
    check_cuda(cudaMemcpyAsync(infos, infos_, static_cast<std::size_t>(used) * sizeof(int), cudaMemcpyDeviceToHost,
                               stream_.get()),
               "cudaMemcpyAsync");
    wait();
    for (std::int64_t i = 0; i < used; ++i) {
        const std::span<double> values(landed + i * n, at(n));
        const bool finite = std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
        if (infos[i] != 0 || !finite) {
            throw Error(ExitCode::numerics,
                        fmt::format("{} did not converge on a matrix of order {} (info {})",
                                    call_.count == 1 ? "cusolverDnXsyevd" : "cusolverDnXsyevBatched", n, infos[i]));
        }
        for (double& value : values) value = std::ldexp(value, exponent_to_scale(traces[at(i)]));
    }
    return {landed, at(used * n)};
}

}  // namespace geom::cuda
