// Singular values by Gram matrices on the GPU. Matrices go over a few lanes, the largest first; small ones of one order
// share a call for eigenvalues:
//
//   lane 0   | A A^T of 5120 x 25600 | trace | eigenvalues |        | ...
//   lane 1   | A^T A of 25600 x 5120 | trace | eigenvalues |        | eight of order 1024 | traces | eigenvalues |
//
// Between the two the traces come to the host: no NaN reaches cuSOLVER.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/gram_lane.hpp"
#include "kernels/matrices.hpp"
#include "kernels/workers.hpp"

namespace geom::cuda {

class GramSpectra {
public:
    /// The threads of `workers` call the lanes.
    GramSpectra(Device& device, Workers& workers);
    GramSpectra(const GramSpectra&) = delete;
    GramSpectra& operator=(const GramSpectra&) = delete;

    /// Bytes of the device's memory that of(), and the verbs of strips of n columns, take, and keep for later calls.
    std::int64_t bytes(std::span<const MatrixSize> sizes) const;
    std::int64_t strip_bytes(std::int64_t n) const;
    /// What is kept now.
    std::int64_t held_bytes() const noexcept;

    /// In the order of `matrices`; nothing where the squares leave fp64's range.
    std::vector<std::optional<SingularValues>> of(std::span<const MatrixRef> matrices);

    /// Matrices::add_gram, issued to Device::stream().
    void add_strip(const MatrixRef& strip, bool first, double* gram);
    /// Matrices::singular_values_of_gram.
    SingularValues of_sum(double* gram, const MatrixSize& size);

private:
    struct Job {
        EigenCall call;
        std::vector<std::size_t> which;  ///< matrices
    };
    struct LanePlan {
        std::int64_t lanes = 1;
        std::int64_t bytes = 0;    ///< of each
        std::int64_t landing = 0;  ///< pinned, of each
    };
    static std::vector<Job> jobs_for(std::span<const MatrixSize> sizes);
    LanePlan plan_for(std::span<const Job> jobs) const;
    LanePlan plan_for_strips(std::int64_t n) const;
    std::int64_t most_lanes() const;
    std::int64_t bytes(const LanePlan& plan) const;
    /// All lanes get what any of them may need: nothing is allocated for a second layer.
    void reserve(const LanePlan& plan);
    /// What is issued to Device::stream() now comes before what lanes begin with ready_.
    void record_ready();
    static void run(GramLane& lane, const Job& job, std::span<const MatrixRef> matrices,
                    std::span<std::optional<SingularValues>> out);

    Device& device_;
    Workers& workers_;
    Event ready_;
    std::vector<GramLane> lanes_;
    Buffer memory_;  ///< of all lanes
};

}  // namespace geom::cuda
