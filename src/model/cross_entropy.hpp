// How well a text is predicted: the mean of -ln p(next token) over all tokens but the last, in nats, from the stream
// that left the last layer and lm_head, which may come in strips of rows.
//
//   CrossEntropy of_text(backend, shape, ids);
//   for every chunk  of_text.set(chunk, stream, final_norm);
//   for every strip  of_text.add(rows, first_row);       in rising order, the same strips on any number of ranks
//   of_text.mean();
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model_shape.hpp"
#include "kernels/backend.hpp"
#include "model/layer_forward.hpp"

namespace geom {

class CrossEntropy {
public:
    CrossEntropy(Backend& backend, const ModelShape& shape, std::span<const std::int32_t> ids);

    /// Bytes of the backend's memory for a text of so many tokens, and of the host's.
    static std::int64_t bytes(Backend& backend, const ModelShape& shape, std::int64_t tokens);
    static std::int64_t host_bytes(std::int64_t tokens);

    /// Normalises what left the last layer: [chunk.tokens, hidden] f32 in the backend's memory; `final_norm` is [1,
    /// hidden]. Every chunk once, before the first strip.
    void set(const TokenChunk& chunk, const float* stream, const MatrixRef& final_norm);

    /// The rows of lm_head (embed_tokens where it is tied) from first_row on. Every row once.
    void look(const MatrixRef& rows, std::int64_t first_row, const LogSumExp& kept);  ///< `kept` is the caller's
    void add(const MatrixRef& rows, std::int64_t first_row);

    /// NaN for a text of one token.
    double mean() const;

private:
    Activations of_chunk(std::int64_t chunk) const;

    Backend& backend_;
    std::int64_t hidden_;
    double eps_;
    std::vector<std::int32_t> next_;  // id after each token; -1 after the last
    std::vector<double> largest_, sum_, wanted_;
    std::vector<Buffer> states_;  // normalised, a chunk each
};

}  // namespace geom
