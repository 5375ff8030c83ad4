// Gram matrices and their eigenvalues on a stream of their own: several lanes are busy at a time, each called from one
// thread, since cuSOLVER does part of an eigenvalue problem on the thread that calls it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/matrix_ref.hpp"

namespace geom::cuda {

/// One call for eigenvalues of `count` matrices of order n. Its shape follows from n alone, and matrices that are not
/// there are zeros: cuSOLVER may take another algorithm for another count, and the bits of a matrix would depend on
/// how many lie beside it.
struct EigenCall {
    std::int64_t n = 0;
    std::int64_t count = 1;  ///< 1: cusolverDnXsyevd; more: cusolverDnXsyevBatched
};

/// Small matrices, up to order 1024, come several a call: 64 MiB of them, 64 at most.
EigenCall eigen_call(std::int64_t n);

class GramLane {
public:
    /// `workspace` is cuBLAS's.
    GramLane(const Device& device, Buffer workspace);

    /// Pieces of a lane's memory for a call, in doubles: the matrices; a widened panel; diagonals, then values; infos;
    /// cuSOLVER's workspace.
    static std::array<std::int64_t, 5> pieces(const Device& device, const EigenCall& call);
    static std::int64_t bytes(const Device& device, const EigenCall& call);

    /// Of pinned memory, for results; begin() throws Error(internal) where it is too little for the call.
    static std::int64_t landing_bytes(const EigenCall& call);
    std::int64_t landing() const noexcept { return landing_.size(); }
    void set_landing(Buffer pinned) { landing_ = std::move(pinned); }

    /// From now on: what is issued comes after `ready`, for `call`, in bytes(call) of device memory at `memory`.
    void begin(cudaEvent_t ready, const EigenCall& call, double* memory);

    /// Matrix `slot` = A A^T, or A^T A where A has more rows than columns; its lower triangle.
    void gram_of(const MatrixRef& a, std::int64_t slot);
    void clear(std::int64_t slot);

    /// The lane's matrices; verbs take these, or others of the call's shape.
    double* squares() const noexcept { return squares_; }

    /// Of the first `used` matrices.
    std::vector<double> traces(const double* matrices, std::int64_t used);

    /// n eigenvalues of each of the first matrices, whose traces these are: ascending, until the next call. Destroys
    /// all matrices. Throws Error(numerics) where cuSOLVER does not converge.
    std::span<const double> eigenvalues(double* matrices, std::span<const double> traces);

private:
    void solve(double* matrices);
    void wait() const;

    const Device& device_;
    Stream stream_;
    Buffer workspace_;
    Cublas cublas_;
    Cusolver cusolver_;
    CusolverParams params_;

    EigenCall call_;
    double *squares_ = nullptr, *panel_ = nullptr, *numbers_ = nullptr, *solver_ = nullptr;
    int* infos_ = nullptr;
    Buffer landing_;                      ///< pinned
    std::vector<std::byte> solver_host_;  ///< cuSOLVER's workspace on the host
};

/// Where a Gram matrix is added up.
struct GramQueue {
    cublasHandle_t cublas = nullptr;
    cudaStream_t stream = nullptr;
    double* panel = nullptr;  ///< panel_doubles
};

/// The lower triangle of gram (+)= A A^T where `wide`, else A^T A, column-major without gaps; `first` overwrites. In
/// panels of the other side, cpu::gram_panel long: the same floor as on a processor.
void add_gram(const GramQueue& on, const MatrixRef& a, bool wide, bool first, double* gram);
std::int64_t panel_doubles(std::int64_t n);

}  // namespace geom::cuda
