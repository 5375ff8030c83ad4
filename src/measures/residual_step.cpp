#include "measures/residual_step.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "measures/spectral_figures.hpp"
#include "measures/spectrum.hpp"

namespace geom {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr const char* no_step = "the layer adds nothing";

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// --- tokens, one by one ----------------------------------------------------------------------------------------------

/// Mean and standard deviation (of the population) of what is not NaN.
class Moments {
public:
    void add(double value) {
        if (!std::isnan(value)) values_.push_back(value);
    }
    double mean() const {
        double sum = 0;
        for (const double value : values_) sum += value;
        return values_.empty() ? nan : sum / static_cast<double>(values_.size());
    }
    double deviation() const {
        const double centre = mean();
        double sum = 0;
        for (const double value : values_) sum += (value - centre) * (value - centre);
        return values_.empty() ? nan : std::sqrt(sum / static_cast<double>(values_.size()));
    }

private:
    std::vector<double> values_;
};

struct TokenMoments {
    Moments step, stream, relative, parallel, cosine, stream_cosine;
    double energy = 0;  // sum of squares of all steps
};

double ratio(double a, double b) { return b > 0 ? a / b : nan; }

/// Also writes the steps.
TokenMoments moments_of(const StepInput& in, std::int64_t hidden, double* step) {
    TokenMoments moments;
    for (std::int64_t t = 0; t * hidden < std::ssize(in.before); ++t) {
        const double* h = in.before.data() + t * hidden;
        const double* next = in.after.data() + t * hidden;
        double* d = step + t * hidden;
        double hh = 0, dd = 0, nn = 0, hd = 0, hn = 0;
        for (std::int64_t i = 0; i < hidden; ++i) {
            d[i] = next[i] - h[i];
            hh += h[i] * h[i];
            dd += d[i] * d[i];
            nn += next[i] * next[i];
            hd += h[i] * d[i];
            hn += h[i] * next[i];
        }
        const double stream = std::sqrt(hh), length = std::sqrt(dd), cosine = ratio(hd, stream * length);
        moments.step.add(length);
        moments.stream.add(stream);
        moments.relative.add(ratio(length, stream));
        moments.parallel.add(std::abs(cosine));
        moments.cosine.add(cosine);
        moments.stream_cosine.add(ratio(hn, stream * std::sqrt(nn)));
        moments.energy += dd;
    }
    return moments;
}

// --- spectrum --------------------------------------------------------------------------------------------------------

// Shares below 1e-12 of the energy are left out, and the others not scaled up again.
double rank_of_energy(std::span<const double> values, double energy) {
    double entropy = 0;
    for (const double value : values) {
        const double share = value * value / energy;
        if (share >= 1e-12) entropy -= share * std::log(share);
    }
    return std::exp(entropy);
}

double leading_share(std::span<const double> values, double energy, std::size_t count) {
    double sum = 0;
    for (const double value : values.first(std::min(count, values.size()))) sum += value * value;
    return sum / energy;
}

std::array<double, step_figure_count> figures_of_step(const TokenMoments& moments, std::span<const double> values) {
    const SpectrumRanks ranks = ranks_of(values);
    const bool zero = values.front() == 0;
    const auto of_spectrum = [&](double value) { return zero ? nan : value; };
    return {std::sqrt(moments.energy),
            moments.step.mean(),
            moments.step.deviation(),
            moments.stream.mean(),
            moments.relative.mean(),
            moments.relative.deviation(),
            moments.parallel.mean(),
            moments.cosine.mean(),
            1.0 - moments.stream_cosine.mean(),
            ranks.eff_rank,
            of_spectrum(rank_of_energy(values, ranks.energy)),
            of_spectrum(leading_share(values, ranks.energy, 1)),
            of_spectrum(leading_share(values, ranks.energy, 3)),
            of_spectrum(leading_share(values, ranks.energy, 10))};
}

void store_directions(const LeadingVectors& leading, std::int64_t hidden, LayerStep& out) {
    for (std::int64_t j = 0; j * hidden < std::ssize(leading.right); ++j) {
        const auto row = std::span(leading.right).subspan(at(j * hidden), at(hidden));
        const bool zero = leading.spectrum.values[at(j)] == 0;
        const double sign = row[leading_entry(row)] < 0 ? -1.0 : 1.0;
        for (const double x : row) {
            const double entry = zero ? nan : sign * x;
            out.top_dirs.push_back(static_cast<float>(entry));
            out.top_dirs_rest.push_back(static_cast<float>(entry - static_cast<double>(out.top_dirs.back())));
        }
    }
}

// As of weights; and where the squares leave less than nine digits of the k-th direction, if values lay apart like it.
bool too_doubtful(const LeadingVectors& leading, std::int64_t k) {
    const SpectralDoubt doubt = doubt_of(leading.spectrum);
    const double last = leading.spectrum.values[at(k - 1)];
    return doubt.eff_rank > 1e-9 || doubt.least > 1e-3 || leading.spectrum.square_error > 1e-10 * last * last;
}

std::vector<LeadingVectors> leading_of(std::span<const MatrixRef> steps, std::int64_t k, Backend& backend) {
    std::vector<LeadingVectors> leading = backend.matrices().gram_leading_vectors(steps, k);
    std::vector<std::size_t> doubtful;
    std::vector<MatrixRef> again;
    for (std::size_t i = 0; i < leading.size(); ++i) {
        if (!too_doubtful(leading[i], k)) continue;
        doubtful.push_back(i);
        again.push_back(steps[i]);
    }
    std::vector<LeadingVectors> direct = backend.matrices().direct_leading_vectors(again, k);
    for (std::size_t i = 0; i < direct.size(); ++i) leading[doubtful[i]] = std::move(direct[i]);
    return leading;
}

/// Steps in the backend's memory, made in the host's.
class Steps {
public:
    Steps(std::int64_t layers, std::int64_t layer_bytes, Backend& backend)
        : layer_bytes_(layer_bytes),
          host_(backend.queue().allocate_staging(layers * layer_bytes)),
          device_(backend.on_device() ? backend.allocate(layers * layer_bytes) : Buffer()) {}

    double* of(std::int64_t layer) { return reinterpret_cast<double*>(host_.data() + layer * layer_bytes_); }

    std::vector<MatrixRef> refs(std::int64_t rows, std::int64_t cols, Queue& queue) {
        const Buffer& memory = device_ ? device_ : host_;
        if (device_) queue.copy(device_.data(), host_.data(), host_.size());
        std::vector<MatrixRef> refs;
        for (std::int64_t begin = 0; begin < memory.size(); begin += layer_bytes_)
            refs.push_back({memory.data() + begin, DType::f64, rows, cols});
        return refs;
    }

private:
    std::int64_t layer_bytes_;
    Buffer host_, device_;
};

}  // namespace

const std::array<StepFigure, step_figure_count> step_figures{{
    {"frob", "Frobenius norm of the step d = h' - h, all tokens", ""},
    {"token_norm_mean", "||d|| of a token, mean over tokens", ""},
    {"token_norm_std", "||d|| of a token, standard deviation (of the population)", ""},
    {"h_norm_mean", "||h|| of a token, the stream that enters the layer, mean", ""},
    {"rel_step_mean", "||d|| / ||h|| of a token, mean", "the stream is zero"},
    {"rel_step_std", "||d|| / ||h|| of a token, standard deviation (of the population)", "the stream is zero"},
    {"parallel_frac", "|cos(d, h)| of a token, mean", "the stream or every step is zero"},
    {"cos_delta_h_mean", "cos(d, h) of a token, mean", "the stream or every step is zero"},
    {"block_influence", "1 - cos(h, h') of a token, mean (Men et al. 2024)", "the stream is zero"},
    {"eff_rank", "effective rank of d: exp of the entropy of s / sum s", no_step},
    {"eff_rank_energy", "effective rank of d's energy: shares s^2 / sum s^2 below 1e-12 left out", no_step},
    {"top1_frac", "share of the largest singular value in sum s^2", no_step},
    {"top3_frac", "share of the three largest singular values in sum s^2", no_step},
    {"top10_frac", "share of the ten largest singular values in sum s^2", no_step},
}};

std::vector<LayerStep> steps_of(std::span<const StepInput> layers, std::int64_t hidden, std::int64_t k,
                                Backend& backend) {
    if (layers.empty()) return {};
    const std::int64_t tokens = std::ssize(layers.front().before) / hidden;
    Steps steps(std::ssize(layers), tokens * hidden * size_of(DType::f64), backend);
    std::vector<TokenMoments> moments(layers.size());
    backend.workers().for_each(std::ssize(layers), [&](std::int64_t i, int) {
        moments[at(i)] = moments_of(layers[at(i)], hidden, steps.of(i));
    });
    const auto leading = leading_of(steps.refs(tokens, hidden, backend.queue()), k, backend);
    std::vector<LayerStep> out(layers.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i].figures = figures_of_step(moments[i], leading[i].spectrum.values);
        out[i].spectrum = leading[i].spectrum.values;
        store_directions(leading[i], hidden, out[i]);
    }
    return out;
}

MatricesScratch step_scratch(std::int64_t tokens, std::int64_t hidden, std::int64_t k, Backend& backend) {
    const std::vector<MatrixSize> sizes(at(backend.workers().size()), {tokens, hidden});
    MatricesScratch scratch = backend.matrices().vectors_scratch(sizes, k);
    const std::int64_t steps = std::ssize(sizes) * tokens * hidden * size_of(DType::f64);
    scratch.backend += steps;
    scratch.host += backend.on_device() ? steps : 0;
    return scratch;
}

}  // namespace geom
