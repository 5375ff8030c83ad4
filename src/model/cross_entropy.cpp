#include "model/cross_entropy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace geom {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int64_t chunks_of(std::int64_t tokens) { return (tokens + chunk_tokens - 1) / chunk_tokens; }
std::int64_t tokens_of(std::int64_t tokens, std::int64_t chunk) {
    return std::min(chunk_tokens, tokens - chunk * chunk_tokens);
}

}  // namespace

CrossEntropy::CrossEntropy(Backend& backend, const ModelShape& shape, std::span<const std::int32_t> ids)
    : backend_(backend),
      hidden_(shape.hidden),
      eps_(shape.forward.norm_eps),
      next_(ids.begin() + (ids.empty() ? 0 : 1), ids.end()),
      largest_(ids.size(), -std::numeric_limits<double>::infinity()),
      sum_(ids.size(), 0.0),
      wanted_(ids.size(), std::numeric_limits<double>::quiet_NaN()) {
    if (!ids.empty()) next_.push_back(-1);
    const std::int64_t tokens = std::ssize(ids);
    for (std::int64_t chunk = 0; chunk < chunks_of(tokens); ++chunk) {
        states_.push_back(
            backend.allocate(backend.transformer().activation_bytes(tokens_of(tokens, chunk), shape.hidden)));
    }
}

std::int64_t CrossEntropy::bytes(Backend& backend, const ModelShape& shape, std::int64_t tokens) {
    Transformer& verbs = backend.transformer();
    std::int64_t bytes = verbs.scratch_bytes(std::min(tokens, chunk_tokens), shape.hidden, shape.head_dim());
    for (std::int64_t chunk = 0; chunk < chunks_of(tokens); ++chunk)
        bytes += verbs.activation_bytes(tokens_of(tokens, chunk), shape.hidden);
    return bytes;
}

std::int64_t CrossEntropy::host_bytes(std::int64_t tokens) {
    return tokens * static_cast<std::int64_t>(sizeof(std::int32_t) + 3 * sizeof(double));
}

Activations CrossEntropy::of_chunk(std::int64_t chunk) const {
    return {states_[at(chunk)].as<float>(), tokens_of(std::ssize(next_), chunk), hidden_};
}

void CrossEntropy::set(const TokenChunk& chunk, const float* stream, const MatrixRef& final_norm) {
    backend_.transformer().rms_norm(stream, final_norm, eps_, of_chunk(chunk.first / chunk_tokens));
}

void CrossEntropy::add(const MatrixRef& rows, std::int64_t first_row) {
    look(rows, first_row, {largest_, sum_, wanted_});
}

void CrossEntropy::look(const MatrixRef& rows, std::int64_t first_row, const LogSumExp& kept) {
    for (std::int64_t chunk = 0; chunk < std::ssize(states_); ++chunk) {
        const Activations x = of_chunk(chunk);
        const auto here = [&](auto all) { return all.subspan(at(chunk * chunk_tokens), at(x.tokens)); };
        backend_.transformer().add_logits(x, rows, first_row, here(std::span<const std::int32_t>(next_)),
                                          {here(kept.largest), here(kept.sum), here(kept.wanted)});
    }
}

double CrossEntropy::mean() const {
    double total = 0.0;
    const std::int64_t predicted = std::ssize(next_) - 1;
    for (std::int64_t i = 0; i < predicted; ++i) total += largest_[at(i)] + std::log(sum_[at(i)]) - wanted_[at(i)];
    return predicted > 0 ? total / static_cast<double>(predicted) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace geom
