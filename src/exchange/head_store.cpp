#include "exchange/head_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/error.hpp"

namespace geom {

HeadBlockFormat block_format(const ModelShape& shape, Backend& backend) {
    return backend.head_products().format(shape.operator_dtype(), shape.head_dim(), shape.hidden);
}

HeadStore::HeadStore(const Plan& plan, std::int64_t pass, std::int64_t rank, const HeadBlockFormat& format,
                     Backend& backend)
    : plan_(plan),
      pass_(pass),
      rank_(rank),
      format_(format),
      backend_(backend),
      shares_(plan.ranks[static_cast<std::size_t>(rank)].passes[static_cast<std::size_t>(pass)].held) {
    std::int64_t blocks = 0;
    for (const GroupShare& held : shares_) {
        first_block_.push_back(blocks);
        blocks += (1 + static_cast<std::int64_t>(held.heads.size())) * layers();
    }
    blocks_ = backend_.allocate(blocks * format_.bytes);
    exponents_.resize(static_cast<std::size_t>(blocks));
}

KvGroupBlocks HeadStore::group(std::int64_t share) const {
    const auto s = static_cast<std::size_t>(share);
    const std::byte* k = blocks_.data() + first_block_[s] * format_.bytes;
    const std::int32_t* exponents = exponents_.data() + first_block_[s];
    return {layers(),  static_cast<std::int64_t>(shares_[s].heads.size()),
            k,         k + layers() * format_.bytes,
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
    blocks.q += (first - held.begin()) * layers() * format_.bytes;
    blocks.q_exponents += (first - held.begin()) * layers();
    return blocks;
}

// Which of the blocks that are held; nothing for one that is not. `layer` counts those with attention.
std::optional<std::int64_t> HeadStore::find(bool key, std::int64_t head, std::int64_t layer) const {
    for (std::size_t s = 0; s < shares_.size(); ++s) {
        std::int64_t row = 0;  // of blocks: K first, then the share's query heads
        if (!key) {
            const auto at = std::find(shares_[s].heads.begin(), shares_[s].heads.end(), head);
            if (at == shares_[s].heads.end()) continue;
            row = 1 + (at - shares_[s].heads.begin());
        } else if (shares_[s].group != head) {
            continue;
        }
        return first_block_[s] + row * layers() + layer;
    }
    return std::nullopt;
}

std::byte* HeadStore::place_of(const BlockTransfer& block) const {
    const auto found = find(block.key, block.head, block.layer);
    if (!found) throw Error(ExitCode::internal, "a block of a head that this rank does not hold");
    return blocks_.data() + *found * format_.bytes;
}

void HeadStore::keep(const Exponent& exponent) {
    if (const auto found = find(exponent.key != 0, exponent.head, exponent.layer))
        exponents_[static_cast<std::size_t>(*found)] = static_cast<std::int32_t>(exponent.exponent);
}

void HeadStore::exchange_round(std::int64_t round, Collectives& collectives) {
    std::vector<Message> receives;
    for (const BlockTransfer& block : plan_.receives(pass_, round, rank_)) {
        if (block.peer != rank_) receives.push_back({static_cast<int>(block.peer), place_of(block), format_.bytes});
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

// Every block is packed once: blocks for this rank where they stay, others into staging, from where they may go to
// several ranks (a group's K when its heads are divided).
void HeadStore::pack_round(std::int64_t round, const LayerWeights& weights) {
    const std::vector<BlockTransfer> sends = plan_.sends(pass_, round, rank_);
    if (sends.empty()) return;
    std::map<std::pair<bool, std::int64_t>, std::byte*> packed;  // (key?, head) -> where its packed form is
    for (const BlockTransfer& block : sends) {
        if (block.peer == rank_) packed.emplace(std::pair{block.key, block.head}, place_of(block));
    }
    std::int64_t staged = 0;
    for (const BlockTransfer& block : sends) staged += packed.contains({block.key, block.head}) ? 0 : 1;
    if (staged * format_.bytes > staging_.size()) staging_ = backend_.allocate(staged * format_.bytes);
    std::byte* free = staging_.data();
    for (const BlockTransfer& block : sends) {
        if (packed.emplace(std::pair{block.key, block.head}, free).second) free += format_.bytes;
    }

    std::vector<MatrixRef> rows;
    std::vector<std::byte*> out;
    const ModelShape& shape = plan_.input.shape;
    const std::int64_t layer = sends.front().layer;
    const std::int64_t row = plan_.attention_rows[static_cast<std::size_t>(layer)];
    if (shape.at(row).head_dim != format_.head_dim) {
        throw Error(ExitCode::input,
                    fmt::format("layer {}: head_dim {} where others have {}: such models are not read yet",
                                shape.at(row).number, shape.at(row).head_dim, format_.head_dim));
    }
    for (const auto& [which, place] : packed) {
        const auto& [key, head] = which;
        const std::int64_t block = key ? shape.kv_head(row, head) : head;
        const Range range{block * format_.head_dim, (block + 1) * format_.head_dim};
        rows.push_back(weights.head_block(key ? WeightFamily::k_proj : WeightFamily::q_proj, range));
        out.push_back(place);
        if (rows.back().exponent == 0) continue;
        packed_.push_back({key ? 1 : 0, head, layer, rows.back().exponent});
        keep(packed_.back());
    }
    backend_.head_products().pack(rows, format_, out);
    for (const BlockTransfer& block : sends) {
        if (block.peer == rank_) continue;
        sends_.push_back({static_cast<int>(block.peer), packed.at({block.key, block.head}), format_.bytes});
    }
}

}  // namespace geom
