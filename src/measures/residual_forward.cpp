#include "measures/residual_forward.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "measures/residual_slabs.hpp"

namespace geom {

namespace {

constexpr std::int64_t float_bytes = sizeof(float);
constexpr std::int64_t kept_of_token = 3;  // f64 numbers that a strip leaves: LogSumExp

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t chunks_of(std::int64_t tokens) { return (tokens + chunk_tokens - 1) / chunk_tokens; }

TokenChunk chunk_of(std::int64_t tokens, std::int64_t chunk) {
    const std::int64_t first = chunk * chunk_tokens;
    return {first, std::min(chunk_tokens, tokens - first)};
}

/// Rows of embed_tokens that the text has, rising.
std::vector<Range> text_rows(const ModelShape& shape) {
    const std::set<std::int32_t> ids(shape.settings.residual.token_ids.begin(),
                                     shape.settings.residual.token_ids.end());
    std::vector<Range> rows;
    for (const std::int32_t id : ids) {
        if (!rows.empty() && rows.back().end == id) {
            ++rows.back().end;
        } else {
            rows.push_back({id, std::int64_t{id} + 1});
        }
    }
    return rows;
}

LogSumExp kept_in(std::span<double> numbers) {
    const std::size_t tokens = numbers.size() / at(kept_of_token);
    return {numbers.first(tokens), numbers.subspan(tokens, tokens), numbers.last(tokens)};
}

/// The sum over strips, in their order, whoever looked at them.
double mean_over(std::span<const double> strips, std::int64_t tokens) {
    const std::int64_t of_strip = kept_of_token * tokens, count = std::ssize(strips) / of_strip;
    double total = 0.0;
    for (std::int64_t i = 0; i + 1 < tokens; ++i) {
        const auto number = [&](std::int64_t strip, std::int64_t which) {
            return strips[at(strip * of_strip + which * tokens + i)];
        };
        double largest = -std::numeric_limits<double>::infinity(), sum = 0.0, wanted = largest;
        for (std::int64_t s = 0; s < count; ++s) largest = std::max(largest, number(s, 0));
        for (std::int64_t s = 0; s < count; ++s) {
            sum += number(s, 1) * std::exp(number(s, 0) - largest);
            if (!std::isnan(number(s, 2))) wanted = number(s, 2);
        }
        total += largest + std::log(sum) - wanted;
    }
    return total / static_cast<double>(tokens - 1);
}

}  // namespace

// --- what it needs ---------------------------------------------------------------------------------------------------

std::int64_t predicting_global(const ModelShape& shape) { return std::ssize(shape.globals) - 1; }

Needs forward_needs(const ModelShape& shape) {
    const std::int64_t tokens = shape.settings.residual.tokens;
    Needs needs;
    std::set<WeightFamily> families;
    for (const LayerShape& layer : shape.layers) {
        for (const WeightFamily family : forward_families(layer)) families.insert(family);
    }
    needs.together = {{families.begin(), families.end()}};
    needs.rising.chunks = chunks_of(tokens);
    needs.rising.state_bytes = std::min(tokens, chunk_tokens) * shape.hidden * float_bytes;
    needs.rising.experts = true;
    const Unit first = step_unit(0);
    for (const Range rows : text_rows(shape))
        needs.besides.push_back({first, {-1, WeightFamily::embed_tokens, -1, rows}});
    if (!predicts_next(shape)) return needs;
    needs.rising.after = predicting_global(shape);
    needs.rising.strip_bytes = kept_of_token * tokens * static_cast<std::int64_t>(sizeof(double));
    needs.besides.push_back(
        {{"residual", UnitOf::global, needs.rising.after, 0}, {-1, WeightFamily::final_norm, -1, {0, 1}}});
    return needs;
}

void add_forward_memory(MemoryNeed& need, const ModelShape& shape, Backend& backend) {
    const std::int64_t tokens = shape.settings.residual.tokens;
    const std::int64_t stream = tokens * shape.hidden * float_bytes,
                       chunk = std::min(tokens, chunk_tokens) * shape.hidden * float_bytes;
    need.kept += LayerForward::bytes(backend, shape, tokens) + (backend.on_device() ? chunk : 0);
    need.kept_host += 3 * stream + chunk;  // the last edge; rows of embed_tokens, of f64 at most
    for (const LayerShape& layer : shape.layers) need.row = std::max(need.row, KvCache::bytes(backend, layer, tokens));
    need.row_host += stream;
    if (!predicts_next(shape)) return;
    need.after += CrossEntropy::bytes(backend, shape, tokens) + (backend.on_device() ? chunk + 8 * shape.hidden : 0);
    need.after_host += CrossEntropy::host_bytes(tokens) + chunk + 8 * shape.hidden;
}

Work forward_work(const ModelShape& shape, const Unit& unit) {
    const std::int64_t tokens = shape.settings.residual.tokens;
    if (unit.of == UnitOf::global) {
        const WeightShape& global = shape.globals[at(unit.first)];
        return {0, tokens * global.rows * global.cols};
    }
    const LayerShape& layer = shape.at(unit.first);
    std::int64_t weights = 0, of_experts = 0;
    for (const WeightShape& weight : layer.weights)
        (weight.expert < 0 ? weights : of_experts) += weight.rows * weight.cols;
    if (layer.experts > 0) weights += of_experts / layer.experts * shape.forward.experts_per_token;
    return {0, tokens * weights + tokens * tokens * shape.heads * layer.head_dim};
}

// --- a chunk in a layer ----------------------------------------------------------------------------------------------

void ResidualForward::look(const LayerVisit& visit) {
    if (visit.of == UnitOf::global) {
        look_at_strip(visit);
    } else {
        look_at_layer(visit);
    }
}

void ResidualForward::start() {
    Backend& backend = context_.backend;
    const bool exact = context_.shape.settings.residual.exact_f32;
    backend.transformer().use(exact ? ForwardProducts::f32 : ForwardProducts::fastest);
    forward_ = std::make_unique<LayerForward>(backend, context_.shape, tokens());
    const std::int64_t bytes = std::min(tokens(), chunk_tokens) * context_.shape.hidden * float_bytes;
    host_ = backend.queue().allocate_staging(bytes);
    if (backend.on_device()) device_ = backend.allocate(bytes);
}

float* ResidualForward::edge(std::int64_t edge) {
    Buffer& memory = edges_[edge];
    if (!memory) memory = allocate_host(tokens() * context_.shape.hidden * float_bytes);
    return memory.as<float>();
}

void ResidualForward::embed(float* stream) const {
    const std::vector<Range> ranges = text_rows(context_.shape);
    const StoredRows rows = context_.read_rows(WeightFamily::embed_tokens, ranges);
    std::map<std::int64_t, std::int64_t> place;  // of an id among the rows
    for (const Range range : ranges) {
        for (std::int64_t id = range.begin; id < range.end; ++id) place.emplace(id, std::ssize(place));
    }
    for (const std::int32_t id : context_.shape.settings.residual.token_ids) {
        const std::int64_t row = place.at(id) * rows.cols;
        for (std::int64_t i = 0; i < rows.cols; ++i) *stream++ = static_cast<float>(number_of(rows, row + i));
    }
}

void ResidualForward::look_at_layer(const LayerVisit& visit) {
    if (!forward_) start();
    const ModelShape& shape = context_.shape;
    Queue& queue = context_.backend.queue();
    const TokenChunk chunk = chunk_of(tokens(), visit.chunk);
    const std::int64_t bytes = chunk.tokens * shape.hidden * float_bytes, first = chunk.first * shape.hidden;
    if (visit.row == 0 && visit.chunk == 0) embed(edge(0));
    float* before = edge(visit.row) + first;
    if (visit.row > 0) std::memcpy(before, visit.state.data(), at(bytes));
    std::memcpy(host_.data(), before, at(bytes));
    if (device_) queue.copy(device_.data(), host_.data(), bytes);
    auto cache = caches_.find(visit.row);
    if (cache == caches_.end())
        cache = caches_.emplace(visit.row, KvCache(context_.backend, shape.at(visit.row), tokens())).first;
    forward_->run(visit.row, visit.weights, chunk, (device_ ? device_ : host_).as<float>(), cache->second);
    if (device_) queue.copy(host_.data(), device_.data(), bytes);
    queue.wait();
    std::memcpy(edge(visit.row + 1) + first, host_.data(), at(bytes));
    std::memcpy(visit.state.data(), host_.data(), at(bytes));
    if (!visit.complete) return;
    caches_.erase(cache);
    complete_.insert(complete_.end(), visit.units.begin(), visit.units.end());
}

// A few units at a time, so that what is done is recorded.
bool ResidualForward::settle() {
    const std::int64_t count = std::min<std::int64_t>(context_.backend.workers().size(), std::ssize(complete_));
    emit_units(
        std::span(complete_).first(at(count)),
        [&](std::int64_t which) {
            const float* stream = edge(which);
            return std::vector<double>(stream, stream + tokens() * context_.shape.hidden);
        },
        context_);
    complete_.erase(complete_.begin(), complete_.begin() + count);
    if (complete_.empty()) edges_.clear();
    return !complete_.empty();
}

// --- strips ----------------------------------------------------------------------------------------------------------

namespace {

/// A copy in the backend's memory.
Buffer on_backend(const std::byte* from, std::int64_t bytes, Backend& backend) {
    Buffer staging = backend.queue().allocate_staging(bytes);
    std::memcpy(staging.data(), from, at(bytes));
    if (!backend.on_device()) return staging;
    Buffer memory = backend.allocate(bytes);
    backend.queue().copy(memory.data(), staging.data(), bytes);
    backend.queue().wait();
    return memory;
}

}  // namespace

void ResidualForward::look_at_strip(const LayerVisit& visit) {
    Backend& backend = context_.backend;
    if (!next_tokens_) {
        const ModelShape& shape = context_.shape;
        forward_.reset();
        const bool exact = shape.settings.residual.exact_f32;
        backend.transformer().use(exact ? ForwardProducts::f32 : ForwardProducts::fastest);
        const Range only{0, 1};
        const StoredRows norm = context_.read_rows(WeightFamily::final_norm, {&only, 1});
        const Buffer weight = on_backend(norm.data.data(), norm.data.size(), backend);
        const MatrixRef final_norm{weight.data(), norm.dtype, 1, norm.cols};
        next_tokens_ = std::make_unique<CrossEntropy>(backend, shape, shape.settings.residual.token_ids);
        const std::int64_t state_bytes = std::ssize(visit.state) / chunks_of(tokens());
        for (std::int64_t chunk = 0; chunk < chunks_of(tokens()); ++chunk) {
            const Buffer stream = on_backend(visit.state.data() + chunk * state_bytes, state_bytes, backend);
            next_tokens_->set(chunk_of(tokens(), chunk), stream.as<float>(), final_norm);
            backend.queue().wait();
        }
    }
    std::vector<double> numbers(at(kept_of_token * tokens()));
    const LogSumExp kept = kept_in(numbers);
    std::fill(kept.largest.begin(), kept.largest.end(), -std::numeric_limits<double>::infinity());
    std::fill(kept.wanted.begin(), kept.wanted.end(), std::numeric_limits<double>::quiet_NaN());
    const MatrixRef rows = visit.weights.rows(context_.shape.globals[at(visit.index)].family, visit.rows);
    next_tokens_->look(rows, visit.rows.begin, kept);
    std::memcpy(visit.left.data(), numbers.data(), visit.left.size());
}

void ResidualForward::finish(const StripsVisit& visit) {
    next_tokens_.reset();
    std::vector<double> strips(visit.left.size() / sizeof(double));
    std::memcpy(strips.data(), visit.left.data(), visit.left.size());
    for (const Unit& unit : visit.units)
        context_.emit({unit, {cross_entropy_slab(mean_over(strips, tokens()), context_.schema)}});
}

}  // namespace geom
