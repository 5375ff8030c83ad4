// W_Q and W_K blocks of the heads a rank holds in one pass, of all layers, and how they get there: every rank packs the
// blocks of the layer it has just read, keeps its own, and sends the others to the owners of their heads.
//
//   K [share][layer]   Q [share][head of the share][layer]      each block format.bytes long
//
// A block whose numbers are far from 1 is packed without a power of two, its exponent (kernels/matrix_ref.hpp), which
// goes to the owner after the blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/backend.hpp"
#include "mpi/collectives.hpp"
#include "plan/plan.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// How this backend keeps the head blocks of such a model.
HeadBlockFormat block_format(const ModelShape& shape, Backend& backend);

class HeadStore {
public:
    /// Memory for the heads of `rank` in `pass`.
    HeadStore(const Plan& plan, std::int64_t pass, std::int64_t rank, const HeadBlockFormat& format, Backend& backend);

    /// Once a round, before it is exchanged: packs the blocks of the layer this rank has just read. Throws Error(input)
    /// for layers whose heads are of another length, Error(numerics) as LayerWeights::head_block does.
    void pack_round(std::int64_t round, const LayerWeights& weights);

    /// Collective, once a round: what was packed goes to its owners. Afterwards the blocks of every layer of this round
    /// are in place.
    void exchange_round(std::int64_t round, Collectives& collectives);

    /// Collective, after the last round: the exponents of the blocks that others packed. One rank has them already.
    void exchange_exponents(const Communicator& communicator);

    const std::vector<GroupShare>& shares() const noexcept { return shares_; }
    /// Layers with attention: Plan::attention_rows.
    std::int64_t layers() const noexcept { return std::ssize(plan_.attention_rows); }
    const HeadBlockFormat& format() const noexcept { return format_; }

    /// The blocks of shares()[share], all of its heads or some neighbours among them. Throws Error(internal) for heads
    /// that the share does not hold one after the other.
    KvGroupBlocks group(std::int64_t share) const;
    KvGroupBlocks group(std::int64_t share, std::span<const std::int64_t> heads) const;

private:
    struct Exponent {  // of a block that was scaled
        std::int64_t key, head, layer, exponent;
    };
    std::optional<std::int64_t> find(bool key, std::int64_t head, std::int64_t layer) const;
    std::byte* place_of(const BlockTransfer& block) const;
    void keep(const Exponent& exponent);

    const Plan& plan_;
    std::int64_t pass_, rank_;
    HeadBlockFormat format_;
    Backend& backend_;
    std::vector<GroupShare> shares_;
    std::vector<std::int64_t> first_block_;  // of each share: its K of layer 0, in blocks
    Buffer blocks_;
    Buffer staging_;
    std::vector<std::int32_t> exponents_;  // of each block
    std::vector<Exponent> packed_;         // of blocks that this rank packed; ordinary ones have none
    std::vector<Message> sends_;           // of the round that was packed last
};

}  // namespace geom
