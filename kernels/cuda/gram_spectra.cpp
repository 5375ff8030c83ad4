#include "kernels/cuda/gram_spectra.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>

#include "kernels/cpu/large_matrix.hpp"
#include "kernels/cuda/dense_batch_shapes.hpp"

namespace geom::cuda {

namespace {

// A reduction to three diagonals waits for memory and for kernels to start: four of order 5120 share an H200 well, and
// take 0.9 GB and what cuSOLVER wants. Of larger ones as many as fit.
constexpr std::int64_t lanes_at_most = 4, bytes_in_lanes = std::int64_t{4} << 30;

std::int64_t order_of(const MatrixSize& size) { return std::min(size.rows, size.cols); }

}  // namespace

GramSpectra::GramSpectra(Device& device, Workers& workers) : device_(device), workers_(workers), ready_(make_event()) {}

std::vector<GramSpectra::Job> GramSpectra::jobs_for(std::span<const MatrixSize> sizes) {
    std::vector<std::size_t> order(sizes.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        const auto key = [&](std::size_t i) {
            return std::pair{order_of(sizes[i]), std::max(sizes[i].rows, sizes[i].cols)};
        };
        return key(a) > key(b);
    });
    std::vector<Job> jobs;
    for (const std::size_t i : order) {
        const EigenCall call = eigen_call(order_of(sizes[i]));
        if (jobs.empty() || jobs.back().call.n != call.n || std::ssize(jobs.back().which) == call.count)
            jobs.push_back({call, {}});
        jobs.back().which.push_back(i);
    }
    return jobs;
}

std::int64_t GramSpectra::most_lanes() const { return std::min<std::int64_t>(lanes_at_most, workers_.size()); }

GramSpectra::LanePlan GramSpectra::plan_for(std::span<const Job> jobs) const {
    device_.use();
    LanePlan plan;
    for (const Job& job : jobs) {
        plan.bytes = std::max(plan.bytes, GramLane::bytes(device_, job.call));
        plan.landing = std::max(plan.landing, GramLane::landing_bytes(job.call));
    }
    const std::int64_t fit =
        std::clamp<std::int64_t>(bytes_in_lanes / std::max<std::int64_t>(1, plan.bytes), 1, most_lanes());
    plan.lanes = std::min<std::int64_t>(fit, std::ssize(jobs));
    return plan;
}

GramSpectra::LanePlan GramSpectra::plan_for_strips(std::int64_t n) const {
    const Job job{{n, 1}, {}};
    return plan_for({&job, 1});
}

std::int64_t GramSpectra::bytes(const LanePlan& plan) const {
    return most_lanes() * Device::cublas_workspace + plan.lanes * plan.bytes;
}

std::int64_t GramSpectra::bytes(std::span<const MatrixSize> sizes) const { return bytes(plan_for(jobs_for(sizes))); }

std::int64_t GramSpectra::strip_bytes(std::int64_t n) const { return bytes(plan_for_strips(n)); }

std::int64_t GramSpectra::held_bytes() const noexcept {
    return std::ssize(lanes_) * Device::cublas_workspace + memory_.size();
}

void GramSpectra::reserve(const LanePlan& plan) {
    device_.use();
    if (lanes_.empty()) {
        lanes_.reserve(at(most_lanes()));
        for (std::int64_t i = 0; i < most_lanes(); ++i)
            lanes_.emplace_back(device_, device_.allocate(Device::cublas_workspace));
    }
    for (GramLane& lane : lanes_) {
        if (plan.landing > lane.landing()) lane.set_landing(device_.allocate_pinned(plan.landing));
    }
    const std::int64_t bytes = plan.lanes * plan.bytes;
    if (bytes <= memory_.size()) return;
    device_.wait();
    memory_ = {};  // first, so that both are never held
    memory_ = device_.allocate(bytes);
}

void GramSpectra::record_ready() { check_cuda(cudaEventRecord(ready_.get(), device_.stream()), "cudaEventRecord"); }

void GramSpectra::run(GramLane& lane, const Job& job, std::span<const MatrixRef> matrices,
                      std::span<std::optional<SingularValues>> out) {
    const std::int64_t used = std::ssize(job.which), n = job.call.n;
    for (std::int64_t slot = 0; slot < used; ++slot) lane.gram_of(matrices[job.which[at(slot)]], slot);
    for (std::int64_t slot = used; slot < job.call.count; ++slot) lane.clear(slot);
    std::vector<double> traces = lane.traces(lane.squares(), used);
    std::vector<std::int64_t> good;
    for (std::int64_t slot = 0; slot < used; ++slot) {
        if (cpu::in_range(traces[at(slot)])) {
            good.push_back(slot);
        } else {
            lane.clear(slot);
            traces[at(slot)] = 0;
        }
    }
    if (good.empty()) return;
    const std::span<const double> squares = lane.eigenvalues(lane.squares(), traces);
    for (const std::int64_t slot : good) {
        const std::size_t i = job.which[at(slot)];
        out[i] =
            cpu::roots_of(squares.subspan(at(slot * n), at(n)), traces[at(slot)], {matrices[i].rows, matrices[i].cols});
    }
}

std::vector<std::optional<SingularValues>> GramSpectra::of(std::span<const MatrixRef> matrices) {
    std::vector<MatrixSize> sizes;
    for (const MatrixRef& matrix : matrices) sizes.push_back({matrix.rows, matrix.cols});
    std::vector<std::optional<SingularValues>> out(matrices.size());
    const std::vector<Job> jobs = jobs_for(sizes);
    const LanePlan plan = plan_for(jobs);
    if (jobs.empty()) return out;
    reserve(plan);
    record_ready();
    std::atomic<std::size_t> next{0};
    workers_.for_each(plan.lanes, [&](std::int64_t which, int) {
        GramLane& lane = lanes_[at(which)];
        for (std::size_t i = next++; i < jobs.size(); i = next++) {
            lane.begin(ready_.get(), jobs[i].call, memory_.as<double>() + which * plan.bytes / 8);
            run(lane, jobs[i], matrices, out);
        }
    });
    return out;
}

void GramSpectra::add_strip(const MatrixRef& strip, bool first, double* gram) {
    reserve(plan_for_strips(strip.cols));
    add_gram({device_.cublas(), device_.stream(), memory_.as<double>()}, strip, false, first, gram);
}

SingularValues GramSpectra::of_sum(double* gram, const MatrixSize& size) {
    const EigenCall call{size.cols, 1};
    reserve(plan_for_strips(size.cols));
    record_ready();
    SingularValues out;
    workers_.for_each(1, [&](std::int64_t, int) {
        GramLane& lane = lanes_[0];
        lane.begin(ready_.get(), call, memory_.as<double>());
        const std::vector<double> traces = lane.traces(gram, 1);
        cpu::check_trace(traces[0], size);
        out = cpu::roots_of(lane.eigenvalues(gram, traces), traces[0], size);
    });
    return out;
}

}  // namespace geom::cuda
