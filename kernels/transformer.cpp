#include "kernels/transformer.hpp"

#include <algorithm>

#include "kernels/check_arguments.hpp"

namespace geom {

namespace {

void check(const Activations& x, const char* verb) {
    require(x.data != nullptr && x.tokens > 0 && x.width > 0, verb, "activations without memory or sizes");
}

void check_alike(const Activations& a, const Activations& b, const char* verb) {
    check(a, verb);
    check(b, verb);
    require(a.tokens == b.tokens && a.width == b.width, verb, "activations of other sizes");
}

void check_stored(const MatrixRef& w, std::int64_t rows, std::int64_t cols, const char* verb) {
    require(w.data != nullptr, verb, "a weight without memory");
    require(w.rows == rows && w.cols == cols, verb, "a weight of another shape");
    const bool widened =
        w.dtype == DType::bf16 || w.dtype == DType::f16 || w.dtype == DType::f32 || w.dtype == DType::f64;
    require(widened, verb, "no products of elements of this type");
}

void check_cache(const KeysAndValues& cache, std::int64_t first, std::int64_t tokens, const char* verb) {
    require(cache.data != nullptr && cache.kv_heads > 0 && cache.head_dim > 0, verb, "a cache without memory or sizes");
    require(first >= 0 && first + tokens <= cache.capacity, verb, "tokens beyond the cache");
    require(first % token_step == 0, verb, "a chunk that begins between two steps of tokens");
}

void check_tokens(std::span<const std::int32_t> tokens, std::int64_t below, const char* verb) {
    const auto inside = [&](std::int32_t token) { return token >= 0 && token < below; };
    require(std::all_of(tokens.begin(), tokens.end(), inside), verb, "a token that is not of the chunk");
}

}  // namespace

std::string Transformer::path(DType weights) const {
    require(is_floating(weights), "path", "no products of elements of this type");
    return do_path(memory_dtype(weights));
}

void Transformer::embed(const MatrixRef& rows, std::int64_t first_row, std::span<const std::int32_t> ids,
                        float* stream) {
    check_stored(rows, rows.rows, rows.cols, "embed");
    require(stream != nullptr && first_row >= 0, "embed", "no stream, or rows before the first");
    do_embed(rows, first_row, ids, stream);
}

void Transformer::rms_norm(const float* stream, const MatrixRef& weight, double eps, const Activations& out) {
    check(out, "rms_norm");
    check_stored(weight, 1, out.width, "rms_norm");
    require(stream != nullptr, "rms_norm", "no stream");
    do_rms_norm(stream, weight, eps, out);
}

void Transformer::product(const Activations& x, const MatrixRef& w, const MatrixRef* bias, const Activations& out) {
    check(x, "product");
    check(out, "product");
    require(x.tokens == out.tokens, "product", "other tokens");
    check_stored(w, out.width, x.width, "product");
    if (bias != nullptr) check_stored(*bias, 1, out.width, "product");
    do_product(x, w, bias, out);
}

void Transformer::rotate(const Activations& x, const HeadTurn& turn) {
    check(x, "rotate");
    require(turn.table != nullptr, "rotate", "no table");
    require(turn.head_dim > 0 && turn.head_dim % 2 == 0 && x.width % turn.head_dim == 0, "rotate",
            "heads of odd length, or not whole ones");
    require(turn.first >= 0 && turn.first + x.tokens <= turn.positions, "rotate", "tokens beyond the table");
    require(turn.first % token_step == 0 && turn.positions % token_step == 0, "rotate",
            "a chunk or a table that is not of whole steps of tokens");
    if (turn.norm != nullptr) check_stored(*turn.norm, 1, turn.head_dim, "rotate");
    do_rotate(x, turn);
}

void Transformer::append(const Activations& k, const Activations& v, std::int64_t first, const KeysAndValues& cache) {
    check_alike(k, v, "append");
    check_cache(cache, first, k.tokens, "append");
    require(k.width == cache.kv_heads * cache.head_dim, "append", "keys of another shape");
    do_append(k, v, first, cache);
}

void Transformer::attend(const Activations& q, const KeysAndValues& cache, std::int64_t first, const Activations& out) {
    check_alike(q, out, "attend");
    check_cache(cache, first, q.tokens, "attend");
    require(q.width % (cache.kv_heads * cache.head_dim) == 0, "attend", "query heads that share no key heads");
    do_attend(q, cache, first, out);
}

void Transformer::gate(const Activations& gate, const Activations& up) {
    check_alike(gate, up, "gate");
    do_gate(gate, up);
}

void Transformer::add(const Activations& y, float* stream) {
    check(y, "add");
    require(stream != nullptr, "add", "no stream");
    do_add(y, stream);
}

void Transformer::route(const Activations& x, const MatrixRef& router, const Routing& routing,
                        std::span<std::int32_t> experts, std::span<float> weights) {
    check(x, "route");
    check_stored(router, router.rows, x.width, "route");
    require(routing.per_token > 0 && routing.per_token <= router.rows, "route", "more experts than there are");
    require(std::ssize(experts) == x.tokens * routing.per_token && experts.size() == weights.size(), "route",
            "results of another size");
    do_route(x, router, routing, experts, weights);
}

void Transformer::gather(const Activations& x, std::span<const std::int32_t> tokens, const Activations& out) {
    check(x, "gather");
    check(out, "gather");
    require(out.width == x.width && out.tokens == std::ssize(tokens), "gather", "results of another size");
    check_tokens(tokens, x.tokens, "gather");
    do_gather(x, tokens, out);
}

void Transformer::add_scaled(const Activations& y, std::span<const std::int32_t> tokens, std::span<const float> weights,
                             float* stream) {
    check(y, "add_scaled");
    require(stream != nullptr, "add_scaled", "no stream");
    require(y.tokens == std::ssize(tokens) && tokens.size() == weights.size(), "add_scaled", "other tokens");
    do_add_scaled(y, tokens, weights, stream);
}

void Transformer::add_logits(const Activations& x, const MatrixRef& rows, std::int64_t first_row,
                             std::span<const std::int32_t> wanted, const LogSumExp& kept) {
    check(x, "add_logits");
    check_stored(rows, rows.rows, x.width, "add_logits");
    const auto is_whole = [&](const auto& span) { return std::ssize(span) == x.tokens; };
    require(is_whole(wanted) && is_whole(kept.largest) && is_whole(kept.sum) && is_whole(kept.wanted), "add_logits",
            "other tokens");
    do_add_logits(x, rows, first_row, wanted, kept);
}

}  // namespace geom
