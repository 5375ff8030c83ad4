// W_Q and W_K blocks of the heads a rank holds in one pass, of all layers, and how they get there: every rank packs the
// blocks of the layer it has just read, keeps its own, and sends the others to the owners of their heads.
//
//   K [share][layer]   Q [share][head of the share][layer]      each block format.bytes long
//
// in the form that measures asked for, of each form where two did: as stored, or folded, times the weights of the
// layer's input norm (as stored where a layer has none).
//
// A block whose numbers are far from 1 is packed without a power of two, its exponent (kernels/matrix_ref.hpp), which
// goes to the owner after the blocks.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/backend.hpp"
#include "mpi/collectives.hpp"
#include "plan/plan.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// How this backend keeps the head blocks of such a model in a form. Folded ones are f32, or f64 where any weight is:
/// products of weights and norm weights are not bf16.
HeadBlockFormat block_format(const ModelShape& shape, Backend& backend, BlockForm form = BlockForm::stored);

class HeadStore {
public:
    /// Memory for the heads of `rank` in `pass`.
    HeadStore(const Plan& plan, std::int64_t pass, std::int64_t rank, Backend& backend);

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
    /// Of the blocks of shares()[share].
    const HeadBlockFormat& format(std::int64_t share) const {
        return format_of(shares_[static_cast<std::size_t>(share)].form);
    }

    /// The blocks of shares()[share], all of its heads or some neighbours among them. Throws Error(internal) for heads
    /// that the share does not hold one after the other.
    KvGroupBlocks group(std::int64_t share) const;
    KvGroupBlocks group(std::int64_t share, std::span<const std::int64_t> heads) const;

private:
    struct Which {  // of a layer's blocks
        BlockForm form;
        bool key;
        std::int64_t head;  // or group
        auto operator<=>(const Which&) const = default;
    };
    struct Exponent {  // of a block that was scaled
        Which which;
        std::int64_t layer;
        std::int32_t exponent;
    };
    struct Share {               // where its blocks are
        std::int64_t bytes = 0;  // K of layer 0, in the memory of its form
        std::int64_t block = 0;  // the same block, counted over all forms
    };
    struct Place {
        std::byte* data;
        std::int64_t block;
    };
    const HeadBlockFormat& format_of(BlockForm form) const { return formats_[static_cast<std::size_t>(form)]; }
    std::optional<Place> find(const Which& which, std::int64_t layer) const;
    std::byte* place_of(const BlockTransfer& block) const;
    std::map<Which, std::byte*> places_to_pack(const std::vector<BlockTransfer>& sends);
    void pack(const LayerWeights& weights, std::int64_t layer, const std::map<Which, std::byte*>& places,
              BlockForm form);
    void keep(const Exponent& exponent);

    const Plan& plan_;
    std::int64_t pass_, rank_;
    std::array<HeadBlockFormat, 2> formats_;
    Backend& backend_;
    std::vector<GroupShare> shares_;
    std::vector<Share> starts_;
    std::array<Buffer, 2> blocks_;
    Buffer staging_;
    std::vector<std::int32_t> exponents_;  // of each block
    std::vector<Exponent> packed_;         // of blocks that this rank packed; ordinary ones have none
    std::vector<Message> sends_;           // of the round that was packed last
};

}  // namespace geom
