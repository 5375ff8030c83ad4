#include "exchange/head_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.hpp"

namespace geom {

HeadBlockFormat block_format(const ModelShape& shape, Backend& backend, BlockForm form) {
    DType dtype = shape.operator_dtype();
    if (form == BlockForm::folded) {
        if (dtype != DType::f64) dtype = DType::f32;
        for (const std::int64_t row : shape.attention_rows()) {
            const WeightShape* norm = shape.at(row).find(WeightFamily::input_ln);
            if (norm != nullptr && norm->dtype == DType::f64) dtype = DType::f64;
        }
    }
    return backend.head_products().format(dtype, shape.head_dim(), shape.hidden);
}

HeadStore::HeadStore(const Plan& plan, std::int64_t pass, std::int64_t rank, Backend& backend)
    : plan_(plan),
      pass_(pass),
      rank_(rank),
      formats_{block_format(plan.input.shape, backend, BlockForm::stored),
               block_format(plan.input.shape, backend, BlockForm::folded)},
      backend_(backend),
      shares_(plan.ranks[static_cast<std::size_t>(rank)].passes[static_cast<std::size_t>(pass)].held) {
    std::int64_t blocks = 0;
    std::array<std::int64_t, 2> bytes{};
    for (const GroupShare& held : shares_) {
        const std::int64_t of_share = (1 + static_cast<std::int64_t>(held.heads.size())) * layers();
        std::int64_t& of_form = bytes[static_cast<std::size_t>(held.form)];
        starts_.push_back({of_form, blocks});
        of_form += of_share * format_of(held.form).bytes;
        blocks += of_share;
    }
    for (std::size_t form = 0; form < bytes.size(); ++form) {
        if (bytes[form] > 0) blocks_[form] = backend_.allocate(bytes[form]);
    }
    exponents_.resize(static_cast<std::size_t>(blocks));
}

KvGroupBlocks HeadStore::group(std::int64_t share) const {
    const GroupShare& held = shares_[static_cast<std::size_t>(share)];
    const Share& start = starts_[static_cast<std::size_t>(share)];
    const std::byte* k = blocks_[static_cast<std::size_t>(held.form)].data() + start.bytes;
    const std::int32_t* exponents = exponents_.data() + start.block;
    return {layers(),  static_cast<std::int64_t>(held.heads.size()),
            k,         k + layers() * format_of(held.form).bytes,
            exponents, exponents + layers()};
}

KvGroupBlocks HeadStore::group(std::int64_t share, std::span<const std::int64_t> heads) const {
    KvGroupBlocks blocks = group(share);
    const std::vector<std::int64_t>& held = shares_[static_cast<std::size_t>(share)].heads;
    const auto first = std::search(held.begin(), held.end(), heads.begin(), heads.end());
    if (heads.empty() || first == held.end())
        throw Error(ExitCode::internal,
                    fmt::format("{} heads that share {} does not hold in a row", heads.size(), share));
    blocks.heads = std::ssize(heads);
    blocks.q += (first - held.begin()) * layers() * format(share).bytes;
    blocks.q_exponents += (first - held.begin()) * layers();
    return blocks;
}

// Nothing for a block that is not held. `layer` counts those with attention.
std::optional<HeadStore::Place> HeadStore::find(const Which& which, std::int64_t layer) const {
    for (std::size_t s = 0; s < shares_.size(); ++s) {
        const GroupShare& held = shares_[s];
        if (held.form != which.form) continue;
        std::int64_t row = 0;  // of blocks: K first, then the share's query heads
        if (!which.key) {
            const auto at = std::find(held.heads.begin(), held.heads.end(), which.head);
            if (at == held.heads.end()) continue;
            row = 1 + (at - held.heads.begin());
        } else if (held.group != which.head) {
            continue;
        }
        const std::int64_t block = row * layers() + layer;
        std::byte* const memory = blocks_[static_cast<std::size_t>(which.form)].data();
        return Place{memory + starts_[s].bytes + block * format_of(which.form).bytes, starts_[s].block + block};
    }
    return std::nullopt;
}

std::byte* HeadStore::place_of(const BlockTransfer& block) const {
    const auto found = find({block.form, block.key, block.head}, block.layer);
    if (!found) throw Error(ExitCode::internal, "a block of a head that this rank does not hold");
    return found->data;
}

void HeadStore::keep(const Exponent& exponent) {
    if (const auto found = find(exponent.which, exponent.layer))
        exponents_[static_cast<std::size_t>(found->block)] = exponent.exponent;
}

void HeadStore::exchange_round(std::int64_t round, Collectives& collectives) {
    std::vector<Message> receives;
    for (const BlockTransfer& block : plan_.receives(pass_, round, rank_)) {
        if (block.peer != rank_)
            receives.push_back({static_cast<int>(block.peer), place_of(block), format_of(block.form).bytes});
    }
    collectives.exchange(std::exchange(sends_, {}), receives);
}

void HeadStore::exchange_exponents(const Communicator& communicator) {
    const std::string mine(reinterpret_cast<const char*>(packed_.data()), packed_.size() * sizeof(Exponent));
    for (const std::string& bytes : communicator.all_gather(mine)) {
        std::vector<Exponent> packed(bytes.size() / sizeof(Exponent));
        std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(packed.data()));
        for (const Exponent& exponent : packed) keep(exponent);
    }
}

void HeadStore::pack_round(std::int64_t round, const LayerWeights& weights) {
    const std::vector<BlockTransfer> sends = plan_.sends(pass_, round, rank_);
    if (sends.empty()) return;
    const std::int64_t layer = sends.front().layer;
    const LayerShape& shape = plan_.input.shape.at(plan_.attention_rows[static_cast<std::size_t>(layer)]);
    if (shape.head_dim != format_of(BlockForm::stored).head_dim) {
        throw Error(ExitCode::input,
                    fmt::format("layer {}: head_dim {} where others have {}: such models are not read yet",
                                shape.number, shape.head_dim, format_of(BlockForm::stored).head_dim));
    }
    const auto places = places_to_pack(sends);
    for (const BlockForm form : {BlockForm::stored, BlockForm::folded}) pack(weights, layer, places, form);
    for (const BlockTransfer& block : sends) {
        if (block.peer == rank_) continue;
        sends_.push_back({static_cast<int>(block.peer), places.at({block.form, block.key, block.head}),
                          format_of(block.form).bytes});
    }
}

// Every block is packed once: blocks for this rank where they stay, others into staging, from where they may go to
// several ranks (a group's K when its heads are divided).
std::map<HeadStore::Which, std::byte*> HeadStore::places_to_pack(const std::vector<BlockTransfer>& sends) {
    std::map<Which, std::byte*> places;
    for (const BlockTransfer& block : sends) {
        if (block.peer == rank_) places.emplace(Which{block.form, block.key, block.head}, place_of(block));
    }
    // From the widest type on, so that each lies at a multiple of its elements.
    std::map<Which, std::int64_t> staged;
    std::int64_t bytes = 0;
    for (const BlockForm form : {BlockForm::folded, BlockForm::stored}) {
        for (const BlockTransfer& block : sends) {
            const Which which{block.form, block.key, block.head};
            if (block.form != form || places.contains(which) || !staged.emplace(which, bytes).second) continue;
            bytes += format_of(form).bytes;
        }
    }
    if (bytes > staging_.size()) staging_ = backend_.allocate(bytes);
    for (const auto& [which, at] : staged) places.emplace(which, staging_.data() + at);
    return places;
}

// Blocks of one form. Of a folded one the exponent is that of the largest weight and the largest of the norm: elements
// are below it, and far below only where they do not meet.
void HeadStore::pack(const LayerWeights& weights, std::int64_t layer, const std::map<Which, std::byte*>& places,
                     BlockForm form) {
    const ModelShape& shape = plan_.input.shape;
    const std::int64_t row = plan_.attention_rows[static_cast<std::size_t>(layer)];
    const HeadBlockFormat& format = format_of(form);
    const bool folded = form == BlockForm::folded && shape.at(row).has(WeightFamily::input_ln);
    std::vector<MatrixRef> blocks;
    std::vector<std::byte*> out;
    for (const auto& [which, place] : places) {
        if (which.form != form) continue;
        const WeightFamily family = which.key ? WeightFamily::k_proj : WeightFamily::q_proj;
        const std::int64_t block = which.key ? shape.kv_head(row, which.head) : which.head;
        const Range rows{block * format.head_dim, (block + 1) * format.head_dim};
        blocks.push_back(weights.head_block(family, rows));
        if (folded) {
            const auto largest = weights.exponent(family, rows),
                       of_norm = weights.exponent(WeightFamily::input_ln, {0, 1});
            blocks.back().exponent = largest && of_norm ? block_exponent(*largest + *of_norm) : 0;
        }
        out.push_back(place);
        if (blocks.back().exponent == 0) continue;
        packed_.push_back({which, layer, blocks.back().exponent});
        keep(packed_.back());
    }
    if (blocks.empty()) return;
    backend_.head_products().pack(blocks, format, out, folded ? weights.matrix(WeightFamily::input_ln) : MatrixRef());
}

}  // namespace geom
