// The forward pass of measure residual on one rank: chunks of the text through its rows, the streams between them kept
// until the rows' steps are done, and at the end how well the next token is predicted, by strips of lm_head.
//
//   edges      0      1      2         streams [tokens, hidden], f32; edge 0 is what embed_tokens makes of the text
//   rows         row 0  row 1
//   visits     (row 0, c0) (row 1, c0) (row 0, c1) ...  or  (row 0, c0) (row 0, c1) ... (row 1, c0) ...
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "measures/measure.hpp"
#include "model/cross_entropy.hpp"
#include "model/layer_forward.hpp"

namespace geom {

/// What the pass needs, besides what a layer's step takes.
Needs forward_needs(const ModelShape& shape);
void add_forward_memory(MemoryNeed& need, const ModelShape& shape, Backend& backend);
/// In products of fp64 that take as long: those of f32 take half of it.
Work forward_work(const ModelShape& shape, const Unit& unit);

/// The global that predicts the next token: lm_head, or embed_tokens where it is tied. Index into ModelShape::globals.
std::int64_t predicting_global(const ModelShape& shape);

class ResidualForward {
public:
    explicit ResidualForward(const MeasureContext& context) : context_(context) {}

    void look(const LayerVisit& visit);  ///< a chunk in a layer, or a strip
    bool settle();
    void finish(const StripsVisit& visit);

private:
    void look_at_layer(const LayerVisit& visit);
    void look_at_strip(const LayerVisit& visit);
    void start();
    void embed(float* stream) const;
    float* edge(std::int64_t edge);
    std::int64_t tokens() const noexcept { return context_.shape.settings.residual.tokens; }

    const MeasureContext& context_;
    std::unique_ptr<LayerForward> forward_;
    Buffer host_, device_;  // a chunk's stream: the verbs' memory, and the host's where that is another
    std::map<std::int64_t, KvCache> caches_;  // by row
    std::map<std::int64_t, Buffer> edges_;
    std::vector<Unit> complete_;  // owed, of rows that all chunks have been through, rising
    std::unique_ptr<CrossEntropy> next_tokens_;
};

}  // namespace geom
